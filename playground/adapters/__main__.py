"""`python -m playground.adapters inspect DIR --model ID`: may this adapter be loaded on that model, and what is it?

For people and CI: the verdict goes to standard output; the exit code is 0 where it may, 1 where it is refused, and 2
where the question cannot be answered (no such model, say). Loads no weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterFacts
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import find_layers
from playground.adapters.library import AdapterLibrary
from playground.errors import AdapterError, PlaygroundError

MAY, REFUSED, NO_ANSWER = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        registry = Registry.load(*given.catalog)
        spec = registry.get(given.model)
        facts = _inspect(registry, spec, given.adapter if given.hub else _local(registry, given.adapter))
    except AdapterError as error:
        print(f"Refused: {error}")
        return REFUSED
    except PlaygroundError as error:
        print(error, file=sys.stderr)
        return NO_ANSWER
    print("\n".join(_verdict(facts, spec)))
    return MAY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m playground.adapters", description="LoRA adapters.")
    inspect = parser.add_subparsers(dest="command", required=True).add_parser(
        "inspect", help="say whether an adapter is safe and fits a model, without loading it"
    )
    inspect.add_argument("adapter", metavar="DIR", help="the adapter's folder, or its id in the catalog")
    inspect.add_argument("--model", required=True, metavar="ID", help="the model that it shall run on")
    inspect.add_argument("--catalog", type=Path, action="append", default=[], metavar="FILE", help="as for app.py")
    inspect.add_argument("--hub", action="store_true", help="DIR is an adapter of the Hub, owner/name[@revision]")
    return parser


def _local(registry: Registry, text: str) -> str:
    """An id of the catalog, or else a folder, which may be written as shells complete it."""
    is_id = any(adapter.id == text for adapter in registry.adapters()) and not Path(text).is_dir()
    return text if is_id or Path(text).is_absolute() or text.startswith("~") else f"./{text}"


def _inspect(registry: Registry, spec: ModelSpec, text: str) -> AdapterFacts:
    """An adapter of the Hub is downloaded for the inspection only."""
    with TemporaryDirectory() as folder:
        library = AdapterLibrary(registry, (), AdapterStore(Path(folder)), find_layers, typed_folders=True)
        return library.check(spec, text).facts


def _verdict(facts: AdapterFacts, spec: ModelSpec) -> list[str]:
    endings = sorted({name.rsplit(".", 1)[-1] for name in facts.target_modules})
    scale = "lora_alpha / sqrt(r)" if facts.use_rslora else "lora_alpha / r"
    return [
        f"May be loaded on {spec.name}.",
        f"  r {facts.r}, lora_alpha {facts.lora_alpha:g}, scale {scale}"
        + (f", other ranks in {len(facts.rank_pattern)} layers" if facts.rank_pattern else ""),
        f"  {len(facts.target_modules)} layers: {', '.join(endings)}",
        f"  {facts.parameters:,} parameters, {facts.bytes:,} bytes, SHA-256 {facts.digest}",
        *(f"Warning: {warning}" for warning in facts.warnings),
    ]


if __name__ == "__main__":
    sys.exit(main())

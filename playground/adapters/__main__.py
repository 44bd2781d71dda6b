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

from huggingface_hub import hf_hub_download

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import AdapterFacts, BaseLayers
from playground.adapters.fetch import AdapterStore
from playground.adapters.hub import hub_errors
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError, PlaygroundError

MAY, REFUSED, NO_ANSWER = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        spec = Registry.load(*given.catalog).get(given.model)
        base = base_layers(spec, _config_folder(spec))
        facts = _inspect_hub(given.adapter, base) if given.hub else inspect_adapter(Path(given.adapter), base)
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
    inspect.add_argument("adapter", metavar="DIR", help="the adapter's folder")
    inspect.add_argument("--model", required=True, metavar="ID", help="the model that it shall run on")
    inspect.add_argument("--catalog", type=Path, action="append", default=[], metavar="FILE", help="as for app.py")
    inspect.add_argument("--hub", action="store_true", help="DIR is a Hub id, owner/name or owner/name@revision")
    return parser


def _config_folder(spec: ModelSpec) -> Path:
    """The folder with the model's config.json, which is downloaded where it is not here yet."""
    if spec.weights.path is not None:
        return spec.weights.path
    assert spec.weights.hub is not None
    with hub_errors(spec.weights.hub, spec.weights.revision):
        return Path(hf_hub_download(spec.weights.hub, "config.json", revision=spec.weights.revision)).parent


def _inspect_hub(text: str, base: BaseLayers) -> AdapterFacts:
    """An adapter of the Hub, downloaded for the inspection only."""
    hub_id, _, revision = text.partition("@")
    with TemporaryDirectory() as folder:
        return AdapterStore(Path(folder)).fetch(hub_id, base, revision or "main").facts


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

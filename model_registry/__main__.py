"""`python -m model_registry` lists models and adapters as tables; `show ID` prints one, every fact with its source.

`export ID FOLDER` writes a model as servers such as vLLM load it, where they cannot load the original.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from model_registry.benchmarks import Benchmark
from model_registry.registry import Registry
from model_registry.spec import AdapterSpec, ModelSpec
from playground.errors import PlaygroundError

COLUMNS = ("id", "name", "kind", "parameters", "weights", "context", "languages", "licence")
ADAPTER_COLUMNS = ("adapter", "name", "for", "languages", "licence")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        registry = Registry.load(*options.catalog)
        print(_done(registry, options))
    except PlaygroundError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _done(registry: Registry, options: argparse.Namespace) -> str:
    if options.command == "show":
        return _shown(registry, options.id)
    if options.command == "export":
        return _exported(registry.get(options.id), options.folder, options.source)
    return tables(registry)


def _exported(spec: ModelSpec, folder: Path, source: Path | None) -> str:
    from model_registry.architectures.export import export  # brings torch along

    files = export(spec, folder, source)
    return f"{folder} has {', '.join(files)}.\nServe it: vllm serve {folder} --served-model-name {spec.id}"


def tables(registry: Registry) -> str:
    """All models, then all adapters."""
    models = _table(COLUMNS, [_row(spec) for spec in registry])
    adapters = [_adapter_row(adapter) for adapter in registry.adapters()]
    return "\n\n".join([models, *([_table(ADAPTER_COLUMNS, adapters)] if adapters else [])])


def describe(spec: ModelSpec) -> str:
    """The whole entry of a model, a fact a line, each with its source in brackets."""
    head = [f"{spec.id}: {spec.name} ({spec.family}, {spec.kind})"]
    head += [f"  aliases: {', '.join(spec.aliases)}"] if spec.aliases else []
    head += [f"  a tiny stand-in for {spec.stand_in_for}"] if spec.is_stand_in else []
    template = spec.prompt.template or "(the one in the tokenizer's files)"
    told = [f"  {item.name.lower()}: {item.text}  [{item.source}]" for item in spec.details]
    measured = [f"  evaluation: {item.text}  [{item.source}]" for item in spec.evaluation]
    tables = [figures(benchmark) for benchmark in spec.benchmarks]
    shown = [*head, *_facts(spec), *told, *measured, *tables]
    return "\n".join([*shown, "  chat template:", textwrap.indent(template.rstrip(), "    ")])


def figures(benchmark: Benchmark) -> str:
    """A table of benchmark figures; * marks the largest of a row, found by comparing them."""
    rows = [(row, *_marked(benchmark, row)) for row in benchmark.figures]
    names = (f"{model} (this model)" if model == benchmark.this_model else model for model in benchmark.models)
    table = textwrap.indent(_table((benchmark.by, *names), rows), "    ")
    metric = f" ({benchmark.metric})" if benchmark.metric else ""
    return f"  benchmark: {benchmark.title}{metric}, * the largest by comparison  [{benchmark.source}]\n{table}"


def describe_adapter(adapter: AdapterSpec) -> str:
    """The same of an adapter."""
    return "\n".join([f"{adapter.id}: {adapter.name} (adapter)", *_facts(adapter)])


def _shown(registry: Registry, name: str) -> str:
    adapter = next((adapter for adapter in registry.adapters() if adapter.id == name.strip().lower()), None)
    return describe(registry.get(name)) if adapter is None else describe_adapter(adapter)


def _facts(entry: ModelSpec | AdapterSpec) -> list[str]:
    facts = [
        f"  {fact}: {_value(entry, fact)}  [{entry.sources[fact]}]" for fact in entry.facts if fact in entry.sources
    ]
    stated = [f"  licence: {item.text}  [{item.source}]" for item in entry.licences]
    return [*facts, *stated, *(f"  limit: {item.text}  [{item.source}]" for item in entry.limits)]


def _marked(benchmark: Benchmark, row: str) -> list[str]:
    largest = benchmark.largest(row)
    pairs = zip(benchmark.models, benchmark.figures[row], strict=True)
    return [f"{figure} *" if model in largest else figure for model, figure in pairs]


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    rows = [columns, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _adapter_row(adapter: AdapterSpec) -> tuple[str, ...]:
    return (adapter.id, adapter.name, " ".join(adapter.base_models), " ".join(adapter.languages), adapter.licence)


def _row(spec: ModelSpec) -> tuple[str, ...]:
    size = f"{spec.weights.bytes / 1e9:.1f} GB" if spec.weights.bytes >= 1e8 else f"{spec.weights.bytes / 1e6:.1f} MB"
    parameters = f"{spec.parameters / 1e9:.2f} B" if spec.parameters >= 1e8 else f"{spec.parameters / 1e6:.1f} M"
    languages = " ".join(spec.languages)
    return (spec.id, spec.name, spec.kind, parameters, size, str(spec.context_length), languages, spec.licence)


def _value(entry: ModelSpec | AdapterSpec, fact: str) -> str:
    value = getattr(entry, fact)
    if hasattr(value, "model_dump"):
        parts = value.model_dump(exclude_none=True, exclude={"template"})
        return ", ".join(f"{key}={part!r}" if isinstance(part, str) else f"{key}={part}" for key, part in parts.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_registry", description=__doc__)
    parser.add_argument("--catalog", type=Path, action="append", default=[], metavar="FILE", help="add this TOML file")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("show", help="print one model or adapter").add_argument("id", help="id or alias")
    export = commands.add_parser("export", help="write a model as servers such as vLLM load it")
    export.add_argument("id", help="id or alias")
    export.add_argument("folder", type=Path, help="where to: new or empty")
    export.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="where its files are, if not in the Hub's cache"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

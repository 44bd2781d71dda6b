"""One TOML file to one entry of the catalog; what is wrong with it becomes a sentence with file, key and line.

Called by `model_registry.registry`; the profiles of Spaces are read and judged by the same rules. Paths in a file are
relative to it; so is `template_file`, and ours stand in `chat_templates/`.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model_registry.spec import AdapterSpec, ModelSpec, ServerSpec
from playground.errors import CatalogError

USER_SOURCE = "user's catalog"
ADAPTERS_KEY = "base_models"
"""What only an adapter has."""
SERVER_KEY = "serves"
"""What only a server has."""

Entry = ModelSpec | AdapterSpec | ServerSpec


def read_catalog_file(path: Path, *, ours: bool = False) -> Entry:
    """Read and validate one file: an adapter if it has the key `base_models`, a server with `serves`, else a model.

    Args:
        path: the TOML file.
        ours: a file of this package must give the source of every fact; in a user's file the user is the source.

    Raises:
        CatalogError: it cannot be read, is no TOML, or has a wrong or missing key.
    """
    text = read_text(path, "catalog file")
    raw = parse_toml(text, path)
    _resolve_files(raw, path)
    kind: type[Entry] = ServerSpec if SERVER_KEY in raw else AdapterSpec if ADAPTERS_KEY in raw else ModelSpec
    facts = getattr(kind, "facts", ())
    if facts and not ours and isinstance(sources := raw.setdefault("sources", {}), dict):
        for fact in set(facts) & set(raw):
            sources.setdefault(fact, USER_SOURCE)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise invalid(path, text, error) from error


def read_text(path: Path, what: str) -> str:
    """Raises CatalogError, which calls the file `what`."""
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte order mark
    except (OSError, ValueError) as error:
        raise CatalogError(f"The {what} {path} cannot be read: {error}.") from error


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Raises CatalogError."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside its own, tomllib lets those of huge numbers and nests out
        raise CatalogError(f"{path} is not valid TOML: {error}.") from error


def _resolve_files(raw: dict[str, Any], path: Path) -> None:
    """Turn `weights.path` into an absolute path and `prompt.template_file` into the template's text, in place."""
    weights, prompt = raw.get("weights"), raw.get("prompt")
    if isinstance(weights, dict) and isinstance(weights.get("path"), str):
        weights["path"] = path.parent.resolve() / weights["path"]
    if isinstance(prompt, dict) and isinstance(prompt.get("template_file"), str):
        prompt["template"] = read_text(path.parent / prompt.pop("template_file"), "chat template")


def invalid(path: Path, text: str, error: ValidationError) -> CatalogError:
    """What is wrong with a file's values, each with its line."""
    problems = [_problem(text, item["loc"], item["type"], item["msg"]) for item in error.errors(include_url=False)]
    return CatalogError(f"{path}: " + "; ".join(problems) + ".")


def _problem(text: str, loc: tuple[int | str, ...], kind: str, message: str) -> str:
    line = f"line {line_of(text, loc)}"
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        return f"{line}: unknown key `{key}`"
    if kind == "missing":
        return f"{line}: the key `{key}` is missing"
    return f"{line}: {'`' + key + '`: ' if key else ''}{message.removeprefix('Value error, ')}"


def line_of(text: str, loc: tuple[int | str, ...]) -> int:
    """The 1-based line where a key stands, or else the line of the nearest table around it, or 1."""
    names, table, best, depth = list(loc), [], 1, 0
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            table = _split(header[2])
            if header[1] == "[[":
                seen[header[2]] += 1
            if count := seen[str(table[0])]:
                table.insert(1, count - 1)  # what follows an entry of a list, [a.b] after [[a]], belongs to that entry
            here = table
        elif key := re.match(r"""\s*((?:[A-Za-z0-9_.-]|"[^"]*"|'[^']*')+)\s*=""", line):
            here = table + _split(key[1])
        else:
            continue
        if len(here) > depth and here == names[: len(here)]:
            best, depth = number, len(here)
    return best


def _split(dotted: str) -> list[int | str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]

"""What the Hub takes in the front matter of a Space's README.md, key by key: what it would refuse, told before.

Knows no profile: it is given what stands in the file. Called by `check`. The rules are the Hub documentation's
"Spaces configuration reference", and for ZeroGPU its page on ZeroGPU, both of August 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from huggingface_hub import SpaceHardware
from packaging.specifiers import SpecifierSet

from spaces_config.profile import Colour

COLOURS = get_args(Colour)
SHORT = 60
"""Characters of a short description."""

HARDWARE = tuple(flavour.value for flavour in SpaceHardware)
ZERO_PYTHONS = ("3.10.13", "3.12.12")
COMMIT = r"[0-9a-f]{40}"
PRELOAD = re.compile(rf"[\w.-]+/[\w.-]+( [^\s]+)?( {COMMIT})?")

Rule = tuple[Callable[[Any], bool], str]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_in(values: tuple[str, ...]) -> Rule:
    return (lambda value: value in values, f"must be one of {', '.join(values)}")


def _is_list_of(pattern: str) -> Callable[[Any], bool]:
    fits = _matches(pattern)
    return lambda value: isinstance(value, list) and bool(value) and all(map(fits, value))


BOOLEAN: Rule = (lambda value: isinstance(value, bool), "must be true or false")
RULES: Mapping[str, Rule] = {
    "title": (_is_text, "must be a text"),
    "emoji": (lambda value: _is_text(value) and not value.isascii(), "must be an emoji"),
    "colorFrom": _is_in(COLOURS),
    "colorTo": _is_in(COLOURS),
    "sdk": _is_in(("gradio",)),
    "sdk_version": (_matches(r"\d+\.\d+\.\d+"), "must be a version as text, such as 6.31.0"),
    "python_version": (_matches(r"3\.\d+(\.\d+)?"), "must be a version as text, such as 3.11"),
    "app_file": (_is_text, "must be a file"),
    "license": (_is_text, "must be a text"),
    "fullWidth": BOOLEAN,
    "header": _is_in(("mini", "default")),
    "short_description": (
        lambda value: _is_text(value) and len(value) <= SHORT,
        f"must be a text of at most {SHORT} characters",
    ),
    "models": (_is_list_of(r"[\w.-]+/[\w.-]+"), "must be names of models on the Hub"),
    "tags": (_is_list_of(r"\S+"), "must be words"),
    "pinned": BOOLEAN,
    "suggested_hardware": _is_in(HARDWARE),
    "disable_embedding": BOOLEAN,
    "startup_duration_timeout": (_matches(r"[1-9]\d*[mh]"), "must be a time such as 30m or 1h"),
    "preload_from_hub": (
        _is_list_of(PRELOAD.pattern),
        "must be repositories, each with files and a commit after it if wanted, with spaces between",
    ),
}
NEEDED = ("title", "sdk", "sdk_version", "python_version", "app_file", "license", "suggested_hardware")


def problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong, a sentence each; empty where the Hub will take it."""
    found = [f"README.md lacks the key {key!r}." for key in NEEDED if key not in data]
    for key, value in data.items():
        if key not in RULES:
            found.append(f"README.md has the key {key!r}, which is none of a Space's.")
        elif not RULES[key][0](value):
            found.append(f"README.md: {key!r} {RULES[key][1]}, not {value!r}.")
    return found


def python_problems(data: Mapping[str, Any], runs_on: SpecifierSet, zero_gpu: bool) -> list[str]:
    """Whether the code runs on its Python. `runs_on`: what it needs. `zero_gpu`: the platform takes only some."""
    version = data.get("python_version")
    if not RULES["python_version"][0](version):
        return []  # which `problems` tells
    if zero_gpu and version not in (fit := list(runs_on.filter(ZERO_PYTHONS))):
        return [f"README.md: on ZeroGPU the code runs with Python {' or '.join(fit)}, not {version}."]
    return [] if runs_on.contains(str(version)) else [f"README.md: the code needs Python {runs_on}, not {version}."]

"""Which layers of the base an adapter's config means, and with what rank and alpha, as PEFT 0.21 resolves it.

Called by the inspection. Knows no files and no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from playground.adapters.config import CONFIG, AdapterConfig
from playground.adapters.facts import BaseLayers
from playground.adapters.files import shown
from playground.adapters.patterns import PatternMatcher
from playground.errors import AdapterError

ALL_LINEAR = "all-linear"
FUSED = "Wqkv"
SPLIT = re.compile(r"(?:^|[^A-Za-z])([qkv]_proj)(?![A-Za-z])")
FIRST_INDEX = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


@dataclass(frozen=True, slots=True)
class Target:
    """One layer that an adapter changes, with the base's widths."""

    name: str
    out_features: int
    in_features: int
    r: int
    lora_alpha: float


def resolve_targets(config: AdapterConfig, base: BaseLayers, matcher: PatternMatcher) -> tuple[Target, ...]:
    """The layers that an adapter changes, in the model's order.

    Raises:
        AdapterError: a target is not in the model, is no Linear layer, or a pattern cannot be matched.
    """
    _require_known(config, base)
    wanted = _wanted(config, base)
    hits = [name for name in (*base.linear, *sorted(base.others)) if _is_target(config, wanted, name, matcher)]
    for name in hits:
        if name not in base.linear:
            raise AdapterError(
                f"{CONFIG}: `target_modules` also means {shown(name)}, which is no Linear layer of this model: "
                "name the Linear layers only."
            )
    if not hits:
        what = shown(config.target_modules)
        raise AdapterError(f"{CONFIG}: `target_modules` {what} means no layer of this model{fused(base, what)}.")
    return tuple(_target(config, base, name, matcher) for name in hits)


def fused(base: BaseLayers, text: str) -> str:
    """The end of a sentence about layers that are missing: why, where the base has fused them; else ""."""
    split = SPLIT.search(text)
    if split is None or not any(name.rsplit(".", 1)[-1] == FUSED for name in base.linear):
        return ""
    return (
        f": it was trained on another conversion of the model, with {split[1]} as a layer of its own, while this one "
        f"computes queries, keys and values in one layer, {FUSED}. It needs training on {FUSED}"
    )


def _require_known(config: AdapterConfig, base: BaseLayers) -> None:
    """Every name of a list must mean something: PEFT passes by those that do not."""
    if isinstance(config.target_modules, str):
        return
    known = set().union(*map(_endings, (*base.linear, *base.others)))
    if unknown := [target for target in config.target_modules if target not in known]:
        target, reason = unknown[0], fused(base, unknown[0])
        raise AdapterError(f"{CONFIG}: `target_modules` names {shown(target)}, which this model has not{reason}.")


def _wanted(config: AdapterConfig, base: BaseLayers) -> str | Collection[str]:
    targets = config.target_modules
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        return [name for name in base.linear if name != base.head]
    return targets


def _is_target(config: AdapterConfig, wanted: str | Collection[str], name: str, matcher: PatternMatcher) -> bool:
    if config.exclude_modules and _means(config.exclude_modules, name, "exclude_modules", matcher):
        return False
    if isinstance(wanted, str):
        return _means(wanted, name, "target_modules", matcher)
    found = _endings(name).intersection(wanted)
    return name in found or (bool(found) and _is_in_layers(config, name, matcher))


def _means(names: str | Collection[str], name: str, field: str, matcher: PatternMatcher) -> bool:
    if isinstance(names, str):
        return matcher.match(names, name, field) is not None
    return not _endings(name).isdisjoint(names)


def _endings(name: str) -> set[str]:
    """A layer's name, and what follows each of its dots: what PEFT lets a name in a list be."""
    parts = name.split(".")
    return {".".join(parts[start:]) for start in range(len(parts))}


def _is_in_layers(config: AdapterConfig, name: str, matcher: PatternMatcher) -> bool:
    wanted = config.layers_to_transform
    if wanted is None or wanted == ():
        return True
    index = _layer_index(config, name, matcher)
    return index is not None and (index == wanted if isinstance(wanted, int) else index in wanted)


def _layer_index(config: AdapterConfig, name: str, matcher: PatternMatcher) -> int | None:
    if not config.layers_pattern:
        found = FIRST_INDEX.match(name)
        return int(found["idx"]) if found else None
    for pattern in config.layers_pattern:
        match = matcher.match(pattern, name, "layers_pattern", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")
        if match is not None:
            return None if match["idx"] is None else int(match["idx"])
    return None


def _target(config: AdapterConfig, base: BaseLayers, name: str, matcher: PatternMatcher) -> Target:
    rank_key = _pattern_key(config.rank_pattern, name, "rank_pattern", matcher)
    alpha_key = _pattern_key(config.alpha_pattern, name, "alpha_pattern", matcher)
    return Target(
        name,
        *base.linear[name],
        r=config.rank_pattern.get(rank_key, config.r),
        lora_alpha=config.alpha_pattern.get(alpha_key, config.lora_alpha),
    )


def _pattern_key(patterns: Iterable[str], name: str, field: str, matcher: PatternMatcher) -> str:
    """The first pattern that matches the end of a layer's name, else the name itself."""
    return next((key for key in patterns if matcher.match(key, name, field, r"(.*\.)?({})$")), name)

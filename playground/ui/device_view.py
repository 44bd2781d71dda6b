"""The devices view as HTML: a bar of memory for every device, a row for every model that is there or on its way.

Pure functions from the pool's reports to markup. Knows no gradio component and no engine. Called by `devices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from model_registry.registry import Registry
from playground.types import DeviceReport, DeviceUse, EngineLabel
from playground.ui.view import adapter_words, amount, load_line, part_of, verbatim

if TYPE_CHECKING:
    from playground.engines.pooling.model_status import ModelStatus

SegmentKind = Literal["weights", "kv-used", "kv-free", "other", "free"]
Hues = Mapping[str, float]

GOLDEN_ANGLE = 137.508
"""Degrees from one model's hue to the next: however many there are, neighbours in the catalog look unlike."""

FIRST_HUE = 275.0

WORDS: Mapping[SegmentKind, str] = {
    "weights": "weights",
    "kv-used": "KV cache in use",
    "kv-free": "reserved",
    "other": "Everything else",
    "free": "Free",
}
NO_DEVICES = "No device has been reported yet."
NO_MODELS = "No model is loaded: the first prompt loads its panel's model."


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a bar; `owner` is None where it is no engine's."""

    kind: SegmentKind
    size_bytes: int
    owner: EngineLabel | None = None


def hues(registry: Registry) -> Hues:
    """Each model's own hue in degrees, the same in every session and on every device."""
    return {spec.id: (FIRST_HUE + GOLDEN_ANGLE * place) % 360 for place, spec in enumerate(registry)}


def segments(report: DeviceReport) -> list[Segment]:
    """The device from left to right: pieces that add up to its total, or to what is ours where that is more.

    What is neither ours nor free is everything else. What engines reserved may be more than is taken by now (a CPU
    gives memory when it is touched): then that much less is shown as free.
    """
    ours = [segment for owner, use in _together(report) for segment in _of_engine(owner, use)]
    taken = sum(segment.size_bytes for segment in ours)
    other = max(0, report.total_bytes - max(0, report.free_bytes) - taken)
    return [*ours, Segment("other", other), Segment("free", max(0, report.total_bytes - taken - other))]


def _together(report: DeviceReport) -> list[tuple[EngineLabel, DeviceUse]]:
    """The engines as they came, but each with an adapter behind its base."""
    places = {owner.model_id: place for place, (owner, _) in reversed([*enumerate(report.engines)])}
    return sorted(report.engines, key=lambda each: (places[each[0].model_id], each[0].adapter is not None))


def _of_engine(owner: EngineLabel, use: DeviceUse) -> list[Segment]:
    used = min(max(0, use.kv_used_bytes), use.kv_bytes)
    return [
        Segment("weights", use.weight_bytes, owner),
        Segment("kv-used", used, owner),
        Segment("kv-free", use.kv_bytes - used, owner),
    ]


def devices(
    registry: Registry, reports: Sequence[DeviceReport], statuses: Sequence[ModelStatus], may_act: bool = True
) -> str:
    """The whole view. `statuses`: of the models that get a row; `may_act`: whether it gets its button."""
    colours = hues(registry)
    names = {spec.id: spec.name for spec in registry}
    bars = "".join(_device(report, names, colours) for report in reports) or f"<p>{NO_DEVICES}</p>"
    rows = "".join(_row(status, names, colours, _cache(reports, status.model_id), may_act) for status in statuses)
    models = f'<ul class="device-models" aria-label="Models">{rows}</ul>' if rows else f"<p>{NO_MODELS}</p>"
    return f'<div class="devices"><div class="device-bars">{bars}</div>{models}</div>'


def _device(report: DeviceReport, names: Mapping[str, str], colours: Hues) -> str:
    parts = segments(report)
    whole = amount(report.total_bytes)
    name = verbatim("CPU memory" if report.device == "cpu" else report.device)
    spoken = "; ".join(f"{verbatim(_name(part.owner, names))} {_words(part)}".strip() for part in parts)
    pieces = "".join(_piece(part, max(1, report.total_bytes), colours) for part in parts)
    lines = groupby(parts, key=lambda part: part.owner)
    facts = "".join(f"<li>{''.join(_fact(part, names, colours) for part in line)}</li>" for _, line in lines)
    return (
        f'<section class="device"><h3>{name}<span>{whole}</span></h3>'
        f'<div class="device-bar" role="img" aria-label="{name}, {whole}: {spoken}">{pieces}</div>'
        f'<ul class="device-facts" aria-hidden="true">{facts}</ul></section>'
    )


def _piece(part: Segment, total_bytes: int, colours: Hues) -> str:
    """Zero stays in place without a width: the browser then moves the edges of the same pieces as they grow."""
    state = "" if part.size_bytes else " none"
    share = 100 * part.size_bytes / total_bytes
    return f'<span class="{_look(part)}{state}" style="{_hue(part.owner, colours)};flex-grow:{share:.4f}"></span>'


def _look(part: Segment) -> str:
    """Classes for the style sheet: a view has its base's hue in another pattern."""
    return f"{part.kind} view" if part.owner and part.owner.adapter else part.kind


def _fact(part: Segment, names: Mapping[str, str], colours: Hues) -> str:
    """A piece of the bar in words, with its very colour; an engine's name stands before its weights."""
    name = f"<b>{verbatim(_name(part.owner, names))}</b> " if part.kind == "weights" else ""
    swatch = f'<i class="swatch {_look(part)}" style="{_hue(part.owner, colours)}"></i>'
    return f"<span>{swatch}{name}{_words(part)}</span>"


def _name(owner: EngineLabel | None, names: Mapping[str, str]) -> str:
    if owner is None:
        return ""
    name = names.get(owner.model_id, owner.model_id)
    return f"{name} + {adapter_words(owner.adapter)}" if owner.adapter else name


def _words(part: Segment) -> str:
    return f"{WORDS[part.kind]} {amount(part.size_bytes)}"


def _cache(reports: Sequence[DeviceReport], model_id: str) -> tuple[int, int]:
    """Bytes of the KV caches of a model and its views over all devices: in use, and reserved."""
    uses = [use for report in reports for owner, use in report.engines if owner.model_id == model_id]
    return sum(use.kv_used_bytes for use in uses), sum(use.kv_bytes for use in uses)


def _row(status: ModelStatus, names: Mapping[str, str], colours: Hues, cache: tuple[int, int], may_act: bool) -> str:
    name = names.get(status.model_id, status.model_id)
    state, meter = _state(status, name, cache)
    said = status.detail if status.state == "failed" else status.place.removeprefix(f"{name}: ")
    place = f'<p class="place">{verbatim(said)}</p>' if said else ""
    return (
        f'<li class="device-model {status.state}" data-model="{verbatim(status.model_id)}" '
        f'style="{_hue(EngineLabel(status.model_id), colours)}">'
        f'<div class="who"><i class="swatch weights"></i><b>{verbatim(name)}</b>'
        f'<span class="state">{state}</span></div>'
        f"{_button(status, name) if may_act else ''}{place}{meter}</li>"
    )


def _state(status: ModelStatus, name: str, cache: tuple[int, int]) -> tuple[str, str]:
    """What the row says, and its thin bar."""
    if status.state == "loading":
        progress = status.progress
        done, total = (progress.done_bytes, progress.total_bytes) if progress else (0, 0)
        return load_line(progress) if progress else "Loading", _meter("progressbar", f"Loading {name}", done, total)
    if status.state == "ready" and cache[1]:
        return f"Ready · KV cache {part_of(*cache)} in use", _meter("meter", f"KV cache of {name}", *cache)
    if status.state == "ready":
        return "Ready", ""
    return "Failed to load; the next prompt tries again", ""


def _meter(role: str, label: str, done: int, total: int) -> str:
    """A thin bar with a value in percent; without one where the total is not known."""
    if total <= 0:
        return f'<div class="thin {role} unknown" role="{role}" aria-label="{verbatim(label)}"><span></span></div>'
    share = min(100.0, max(0.0, 100 * done / total))
    values = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}"'
    return (
        f'<div class="thin {role}" role="{role}" aria-label="{verbatim(label)}" {values}>'
        f'<span style="width:{share:.2f}%"></span></div>'
    )


def _button(status: ModelStatus, name: str) -> str:
    actions = {"loading": ("cancel", "Cancel"), "ready": ("unload", "Unload")}
    if status.state not in actions:
        return ""
    action, word = actions[status.state]
    return (
        f'<button type="button" data-action="{action}" data-model="{verbatim(status.model_id)}" '
        f'aria-label="{word} {verbatim(name)}">{word}</button>'
    )


def _hue(owner: EngineLabel | None, colours: Hues) -> str:
    return f"--hue:{colours.get(owner.model_id if owner else '', FIRST_HUE):.0f}"

"""What to say when models do not fit: how much is missing where, and the nearest plan that would fit.

Everything it says is tried with the planner first, which it is given. Called by `planner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from model_registry.spec import ModelSpec
from playground.placement.explain import gigabytes, listed
from playground.placement.plan import Device, Placement, PlacementPlan, PlanOptions, bytes_by_device

Plan = Callable[[Sequence[ModelSpec], Sequence[Device], PlanOptions, Sequence[Placement]], PlacementPlan | None]

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)
"""Memory of real GPUs."""

REPORTED = 0.98
"""The part of its nominal memory that a card reports as free when nothing runs on it."""

STEP = 100_000_000
"""Missing bytes are told to this."""

MOST = 1_000_000_000_000
"""Bytes beyond which no device is imagined."""


def card(name: str, gib: float, used_gib: float = 0.0) -> Device:
    """An imagined GPU of a nominal size, part of it taken by others."""
    total = int(gib * 2**30 * REPORTED)
    return Device(name, "cuda", total, max(total - int(used_gib * 2**30), 0))


def advice(
    specs: Sequence[ModelSpec],
    devices: Sequence[Device],
    options: PlanOptions,
    standing: Sequence[Placement],
    plan: Plan,
) -> str:
    """Sentences for models for which `plan` finds no place."""
    names = listed([spec.name for spec in specs])
    verb = "does not fit" if len(specs) == 1 else "do not fit together"
    ways = [
        way for way in (_nearest(specs, devices, options, standing, plan), _smallest_card(specs, options, plan)) if way
    ]
    return " ".join([f"{names} {verb}: {_missing(specs, devices, options, standing, plan)}.", *ways])


def _missing(
    specs: Sequence[ModelSpec],
    devices: Sequence[Device],
    options: PlanOptions,
    standing: Sequence[Placement],
    plan: Plan,
) -> str:
    """What there is, and the least that must be added to the roomiest device."""
    if not devices:
        return "there is no device"
    taken = bytes_by_device(standing)
    usable = [device for device in devices if device.kind == "cuda"] or list(devices)
    free = {device.name: max(device.free_bytes - taken[device.name], 0) for device in usable}
    there = listed([f"{gigabytes(size)} free on {name}" for name, size in free.items()])
    roomiest = max(free, key=lambda name: free[name])

    def fits_with(more: int) -> bool:
        grown = [
            replace(d, total_bytes=d.total_bytes + more, free_bytes=d.free_bytes + more) if d.name == roomiest else d
            for d in devices
        ]
        return plan(specs, grown, options, standing) is not None

    if not fits_with(MOST):
        return there
    low, high = 0, MOST // STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits_with(middle * STEP) else (middle, high)
    return f"{gigabytes(high * STEP)} are missing on {roomiest}, with {there}"


def _nearest(
    specs: Sequence[ModelSpec],
    devices: Sequence[Device],
    options: PlanOptions,
    standing: Sequence[Placement],
    plan: Plan,
) -> str:
    """The first that would fit here of: other weights, offloading, fewer of the models."""
    for introduction, some, changed in _changes(specs, options):
        found = plan(some, devices, changed, standing)
        if found is not None:
            return f"{introduction}: {' '.join(found.sentences)}"
    return ""


def _changes(
    specs: Sequence[ModelSpec], options: PlanOptions
) -> Iterator[tuple[str, Sequence[ModelSpec], PlanOptions]]:
    auto = replace(options, quantisation="auto")
    if options.quantisation != "auto":
        yield "With the weights that fit (--quantise auto) there is room", specs, auto
    if not options.offload:
        yield (
            "With layers in the CPU's memory (--offload), which is slow, there is room",
            specs,
            replace(auto, offload=True),
        )
    for count in range(len(specs) - 1, 0, -1):
        for some in combinations(specs, count):
            yield f"{listed([spec.name for spec in some])} alone would fit", some, options


def _smallest_card(specs: Sequence[ModelSpec], options: PlanOptions, plan: Plan) -> str:
    for gib in CARDS_GIB:
        if plan(specs, [card("cuda:0", gib)], options, ()) is not None:
            return f"One GPU of {gib} GB would do."
    return ""

"""What to say when models do not fit: how much is missing where, and the nearest plan that would fit.

Whatever it suggests was tried with the planner, which it is given. Called by `planner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from model_registry.spec import ModelSpec
from playground.placement.explain import gigabytes, listed
from playground.placement.plan import Device, Placement, PlacementPlan, PlanOptions, bytes_by_device

FindPlan = Callable[[Sequence[ModelSpec], Sequence[Device], PlanOptions, Sequence[Placement]], PlacementPlan | None]

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)
"""Memory of real GPUs."""

REPORTED = 0.98
"""The part of its nominal memory that a card has free when nothing runs on it."""

STEP = 100_000_000
"""Missing bytes are told to this."""

MOST = 1_000_000_000_000
"""Missing bytes are sought up to this."""


def card(name: str, gib: float, used_gib: float = 0.0) -> Device:
    """An imagined GPU of a nominal size, part of it taken by others."""
    total = int(gib * 2**30 * REPORTED)
    return Device(name, "cuda", total, max(total - int(used_gib * 2**30), 0))


@dataclass(frozen=True, slots=True)
class Question:
    """What the planner was asked and found no answer to."""

    specs: Sequence[ModelSpec]
    devices: Sequence[Device]
    options: PlanOptions
    standing: Sequence[Placement] = ()

    def answer(self, find_plan: FindPlan) -> PlacementPlan | None:
        return find_plan(self.specs, self.devices, self.options, self.standing)


def advice(question: Question, find_plan: FindPlan) -> str:
    """Sentences for models for which there is no place."""
    verb = "does not fit" if len(question.specs) == 1 else "do not fit together"
    least = replace(question, options=replace(question.options, contexts=1))
    first = f"{_names(question.specs)} {verb}: {_missing(least, find_plan)}."
    return " ".join(filter(None, [first, _nearest(question, find_plan), _smallest_card(least, find_plan)]))


def _missing(question: Question, find_plan: FindPlan) -> str:
    """The least that must be added to the roomiest device, and what there is."""
    if not question.devices:
        return "there is no device"
    taken = bytes_by_device(question.standing)
    usable = [device for device in question.devices if device.kind == "cuda"] or list(question.devices)
    free = {device.name: max(device.free_bytes - taken[device.name], 0) for device in usable}
    roomiest = max(free, key=lambda name: free[name])
    low, high = 0, MOST // STEP
    while high - low > 1:
        middle = (low + high) // 2
        grown = replace(question, devices=[_grown(device, roomiest, middle * STEP) for device in question.devices])
        low, high = (low, middle) if grown.answer(find_plan) else (middle, high)
    there = listed([f"{gigabytes(size)} on {name}" for name, size in free.items()])
    return f"{gigabytes(high * STEP)} are missing on {roomiest} (free: {there})"


def _grown(device: Device, name: str, more: int) -> Device:
    if device.name != name:
        return device
    return replace(device, total_bytes=device.total_bytes + more, free_bytes=device.free_bytes + more)


def _nearest(question: Question, find_plan: FindPlan) -> str:
    """The first that would fit here of: other weights, offloading, fewer of the models."""
    for introduction, changed in _changes(question):
        found = changed.answer(find_plan)
        if found is not None:
            return f"{introduction}: {' '.join(found.sentences)}"
    return ""


def _changes(question: Question) -> Iterator[tuple[str, Question]]:
    options, specs = question.options, question.specs
    if options.quantisation != "auto":
        auto = replace(options, quantisation="auto")
        yield "With quantised weights where they help (--quantise auto)", replace(question, options=auto)
    if not options.offload:
        offload = replace(options, offload=True)
        yield "With layers in the CPU's memory (--offload), slowly", replace(question, options=offload)
    for count in range(len(specs) - 1, 0, -1):
        for some in combinations(specs, count):
            yield f"Without {_names([s for s in specs if s not in some])}", replace(question, specs=some)


def _smallest_card(question: Question, find_plan: FindPlan) -> str:
    sizes = (gib for gib in CARDS_GIB if find_plan(question.specs, [card("cuda:0", gib)], question.options, ()))
    smallest = next(sizes, None)
    return f"One GPU with {smallest} GB would hold {'all' if len(question.specs) > 1 else 'it'}." if smallest else ""


def _names(specs: Sequence[ModelSpec]) -> str:
    return listed([spec.name for spec in specs])

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
from playground.placement.quantising import INSTALL

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
    quantised = replace(question.options, quantisation="auto", can_quantise=True)
    with_bits = f"ith quantised weights where they help ({_way_to_quantise(question.options)})"
    helps = quantised != question.options and not question.options.strict
    if helps:
        yield f"W{with_bits}", replace(question, options=quantised)
    if not question.options.offload and not question.options.strict:
        offload = replace(question.options, offload=True)
        yield "With layers in the CPU's memory (--offload), slowly", replace(question, options=offload)
    for some, without in _fewer(question.specs):
        yield without, replace(question, specs=some)
    for some, without in _fewer(question.specs) if helps else ():
        yield f"{without}, and w{with_bits}", replace(question, specs=some, options=quantised)


def _way_to_quantise(options: PlanOptions) -> str:
    ways = [] if options.can_quantise else [f"`{INSTALL}`"]
    return " and ".join(ways if options.quantisation == "auto" else [*ways, "--quantise auto"])


def _fewer(specs: Sequence[ModelSpec]) -> Iterator[tuple[Sequence[ModelSpec], str]]:
    """Some of the models, most of them first, and who is left out."""
    for count in range(len(specs) - 1, 0, -1):
        for some in combinations(specs, count):
            yield some, f"Without {_names([spec for spec in specs if spec not in some])}"


def _smallest_card(question: Question, find_plan: FindPlan) -> str:
    """Which GPU would do as asked; where any weights will do, at 16 bits, and a smaller one with quantised weights."""
    options = question.options
    if options.quantisation in ("8-bit", "4-bit") or options.strict:
        ways = [options]
    else:
        ways = [replace(options, quantisation="none"), replace(options, quantisation="auto", can_quantise=True)]
    cards: dict[int, str] = {}
    for way in ways:
        found = _card_for(replace(question, options=way), find_plan)
        if found is not None:
            cards.setdefault(*found)
    if not cards:
        return ""
    (gib, weights), *smaller = cards.items()
    beside = "" if options.can_quantise else " and bitsandbytes"
    others = "".join(f", or one with {less} GB {bits}{beside}" for less, bits in smaller)
    return f"One GPU with {gib} GB would hold {'all' if len(question.specs) > 1 else 'it'} {weights}{others}."


def _card_for(question: Question, find_plan: FindPlan) -> tuple[int, str] | None:
    """The smallest card, in GiB, and in what precision it holds the models."""
    for gib in CARDS_GIB:
        found = find_plan(question.specs, [card("cuda:0", gib)], question.options, ())
        if found is not None:
            return gib, _precision(found, question.specs)
    return None


def _precision(found: PlacementPlan, specs: Sequence[ModelSpec]) -> str:
    """ "at 16 bits", "with 4-bit weights", "with 8-bit weights for KULLM3"."""
    names: dict[str, list[str]] = {}
    for spec in specs:
        names.setdefault(found.of(spec.id).quantisation, []).append(spec.name)
    if set(names) == {"none"}:
        full = any(placement.dtype == "float32" for placement in found.placements)
        return "without quantised weights" if full else "at 16 bits"
    if len(names) == 1:
        return f"with {next(iter(names))} weights"
    return f"with {listed([f'{bits} weights for {listed(some)}' for bits, some in names.items() if bits != 'none'])}"


def _names(specs: Sequence[ModelSpec]) -> str:
    return listed([spec.name for spec in specs])

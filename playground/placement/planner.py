"""Where each model goes: a pure function over catalog facts and a device list, so that it is tested without GPUs.

The order of preference, each step taken only where none before it has room for all models asked for:

1. 16-bit weights, then 8-bit, then 4-bit, where the options and the catalog allow it: no 4-bit weights while 8-bit ones
   would do, as few quantised models as will do, and the larger model before the smaller, which suffers more.
2. With the same weights: every model whole on one GPU; then as few models as will do spread over several GPUs.
3. So placed: on as few devices as a spread model needs, and no two models on one device while there is another.
4. With CPU offloading, and only where asked for: as few models as will do keep some layers in the CPU's memory. They
   stay at 16 bits, for bitsandbytes' weights do not travel. This is the last resort, after 4-bit weights.

Before any step down, models get room for fewer full contexts than wanted, down to one; what is left over then is given
back, a context at a time. Every engine is a process of its own, so each pays for one on every device that it uses.

The CPU serves models in float32. It takes anything that it has memory for where there are no GPUs. Beside GPUs it takes
only models so small that it answers at reading speed, and only when no GPU has room: a large model that silently landed
there would seem to hang, so it is refused, and the error says what would help.

Called by the composition root, the engine pool and the page. Knows neither torch nor the engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import get_args

from model_registry.spec import ModelSpec
from playground.errors import PlacementError
from playground.placement.advice import advice
from playground.placement.explain import reason
from playground.placement.footprint import footprint
from playground.placement.plan import (
    Device,
    Placement,
    PlacementPlan,
    PlanOptions,
    Quantisation,
    Share,
    bytes_by_device,
)
from playground.placement.search import Demand, Layout, Machine, Manner, find_layout, holds, shares

SMALL = 1_000_000_000
"""Parameters up to which a CPU answers at reading speed: in float32 a token reads 4 GB of memory."""

SEVERITY: tuple[Quantisation, ...] = get_args(Quantisation)


def plan(
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    options: PlanOptions = PlanOptions(),  # noqa: B008 (frozen)
    *,
    standing: Sequence[Placement] = (),
) -> PlacementPlan:
    """Places for all of these models at once.

    Args:
        specs: the models, in any order; one asked for twice has one place.
        devices: what the machine has; `free_bytes` is what it had before the standing models came.
        options: what the user asks for.
        standing: models that are there already and cannot move.

    Raises:
        PlacementError: they do not fit; the sentences say what is missing, and the nearest plan that would fit.
    """
    wanted = list({spec.id: spec for spec in specs}.values())
    found = _plan(wanted, devices, options, standing)
    if found is None:
        raise PlacementError(advice(wanted, devices, options, standing, _plan))
    return found


def needed_bytes(spec: ModelSpec) -> int:
    """What the model takes of one GPU, whole and unquantised, with one full context: for menus and advice."""
    return footprint(spec).whole_bytes(1)


def fits_on_gpus(specs: Iterable[ModelSpec], devices: Sequence[Device], options: PlanOptions = PlanOptions()) -> bool:  # noqa: B008
    """Whether GPUs alone hold all these models at once."""
    gpus = [device for device in devices if device.kind == "cuda"]
    return bool(gpus) and _plan(list(specs), gpus, options, ()) is not None


def _plan(
    specs: Sequence[ModelSpec], devices: Sequence[Device], options: PlanOptions, standing: Sequence[Placement]
) -> PlacementPlan | None:
    machine = _machine(devices, standing)
    for demands in _steps(specs, options, machine):
        found = _settle(demands, options.contexts, machine)
        if found is not None:
            layout, contexts = found
            parts = zip(demands, contexts, shares(layout, demands, contexts, machine), strict=True)
            placements = [_placement(demand, count, taken, machine) for demand, count, taken in parts]
            pairs = zip(placements, specs, strict=True)
            return PlacementPlan(tuple(replace(p, reason=reason(p, spec, devices, options)) for p, spec in pairs))
    return None


def _machine(devices: Sequence[Device], standing: Sequence[Placement]) -> Machine:
    taken = bytes_by_device(standing)
    return Machine(
        gpus=tuple(device.name for device in devices if device.kind == "cuda"),
        cpu=next((device.name for device in devices if device.kind == "cpu"), None),
        free={device.name: device.free_bytes - taken[device.name] for device in devices},
        busy=frozenset(taken),
    )


def _steps(specs: Sequence[ModelSpec], options: PlanOptions, machine: Machine) -> Iterator[list[Demand]]:
    """What is tried, in the order of preference."""
    if not machine.gpus:
        yield [_demand(spec, "none", "whole", machine) for spec in specs]
        return
    for offloaded in _subsets(specs) if options.offload else [frozenset[str]()]:
        for quantisations in _quantisations(specs, options):
            pairs = list(zip(specs, quantisations, strict=True))
            if any(spec.id in offloaded and quantisation != "none" for spec, quantisation in pairs):
                continue
            for spread in _subsets([spec for spec in specs if spec.id not in offloaded]):
                yield [_demand(spec, q, _manner(spec, spread, offloaded), machine) for spec, q in pairs]


def _manner(spec: ModelSpec, spread: frozenset[str], offloaded: frozenset[str]) -> Manner:
    return "offloaded" if spec.id in offloaded else "spread" if spec.id in spread else "whole"


def _subsets(specs: Sequence[ModelSpec]) -> Iterator[frozenset[str]]:
    """Ids of none, one, two … of the models, larger ones first."""
    ids = [spec.id for spec in sorted(specs, key=lambda spec: -spec.parameters)]
    for count in range(len(ids) + 1):
        yield from map(frozenset, combinations(ids, count))


def _quantisations(specs: Sequence[ModelSpec], options: PlanOptions) -> list[tuple[Quantisation, ...]]:
    """One quantisation for each model, from the mildest combination to the most severe."""
    allowed = [_allowed(spec, options) for spec in specs]
    by_size = sorted(range(len(specs)), key=lambda number: -specs[number].parameters)

    def severity(chosen: tuple[Quantisation, ...]) -> tuple[int, ...]:
        levels = [SEVERITY.index(quantisation) for quantisation in chosen]
        # Few at 4 bits before few at 8: and of one model, the larger.
        return (levels.count(2), levels.count(1), *(-levels[number] for number in by_size))

    return sorted(product(*allowed), key=severity)


def _allowed(spec: ModelSpec, options: PlanOptions) -> tuple[Quantisation, ...]:
    if options.quantisation == "auto":
        return ("none", *spec.quantisations)
    if options.quantisation in spec.quantisations:
        return (options.quantisation,)
    return ("none",)


def _demand(spec: ModelSpec, quantisation: Quantisation, manner: Manner, machine: Machine) -> Demand:
    may_use_cpu = manner == "whole" and (not machine.gpus or spec.parameters <= SMALL)
    return Demand(
        spec=spec,
        quantisation=quantisation,
        manner=manner,
        on_gpu=footprint(spec, quantisation) if machine.gpus else None,
        on_cpu=footprint(spec, "none", "cpu") if may_use_cpu else None,
    )


def _settle(demands: Sequence[Demand], wanted: int, machine: Machine) -> tuple[Layout, list[int]] | None:
    """The layout with the most full contexts for all models alike, up to those wanted, and more for each that fits."""
    low, layout = 1, find_layout(demands, [1] * len(demands), machine)
    if layout is None:
        return None
    high = wanted
    while low < high:
        middle = (low + high + 1) // 2
        found = find_layout(demands, [middle] * len(demands), machine)
        low, high, layout = (low, middle - 1, layout) if found is None else (middle, high, found)
    contexts = [low] * len(demands)
    for level in range(low + 1, wanted + 1):
        for number, count in enumerate(contexts):
            more = [*contexts[:number], level, *contexts[number + 1 :]]
            if count == level - 1 and holds(layout, demands, more, machine):
                contexts = more
    return layout, contexts


def _placement(demand: Demand, contexts: int, taken: tuple[Share, ...], machine: Machine) -> Placement:
    on_cpu = taken[0].device == machine.cpu
    sizes = demand.on_cpu if on_cpu else demand.on_gpu
    assert sizes is not None, "a share is what a footprint gave"
    return Placement(
        model_id=demand.spec.id,
        dtype=sizes.dtype,
        quantisation="none" if on_cpu else demand.quantisation,
        kv_tokens=contexts * demand.spec.context_length,
        shares=taken,
        reason="",
    )

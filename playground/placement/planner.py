"""Where each model goes: a pure function over catalog facts and a device list, so that it is tested without GPUs.

What it prefers to what is written in `preference`. Every engine is a process of its own, so each model pays for one on
every device that it uses. It is deterministic: the same question has the same answer.

Called by the composition root, the engine pool and the page. Knows neither torch nor the engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from model_registry.spec import ModelSpec
from playground.errors import PlacementError
from playground.placement.advice import Question, advice
from playground.placement.explain import reason
from playground.placement.footprint import footprint
from playground.placement.plan import Device, Placement, PlacementPlan, PlanOptions, Share, bytes_by_device
from playground.placement.preference import steps
from playground.placement.quantising import check_quantisation
from playground.placement.search import Demand, Layout, Machine, find_layout, holds, shares


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
        PlacementError: they do not fit; the sentences say what is missing, and the nearest plan that would fit. Or
            weights are to be quantised that cannot be here.
    """
    check_quantisation(options, devices)
    wanted = list({spec.id: spec for spec in specs}.values())
    found = find_plan(wanted, devices, options, standing)
    if found is None:
        raise PlacementError(advice(Question(wanted, devices, options, standing), find_plan))
    return found


def find_plan(
    specs: Sequence[ModelSpec],
    devices: Sequence[Device],
    options: PlanOptions = PlanOptions(),  # noqa: B008
    standing: Sequence[Placement] = (),
) -> PlacementPlan | None:
    """As `plan`, without advice where there is no plan: that takes several times as long as looking for one."""
    machine = _machine(devices, standing)
    for demands in steps(specs, options, machine):
        found = _settle(demands, options.contexts, machine)
        if found is not None:
            layout, contexts = found
            parts = zip(demands, contexts, shares(layout, demands, contexts, machine), strict=True)
            placements = [_placement(demand, count, taken, machine) for demand, count, taken in parts]
            alone = len(placements) + len(standing) == 1
            why = [reason(p, s, devices, options, alone=alone) for p, s in zip(placements, specs, strict=True)]
            return PlacementPlan(tuple(replace(p, reason=r) for p, r in zip(placements, why, strict=True)))
    return None


def needed_bytes(spec: ModelSpec) -> int:
    """What the model takes of one GPU, whole and unquantised, with one full context: for menus and advice."""
    return footprint(spec).whole_bytes(1)


def fits_on_gpus(specs: Iterable[ModelSpec], devices: Sequence[Device], options: PlanOptions = PlanOptions()) -> bool:  # noqa: B008
    """Whether GPUs alone hold all these models at once."""
    gpus = [device for device in devices if device.kind == "cuda"]
    return bool(gpus) and find_plan(list(specs), gpus, options) is not None


def _machine(devices: Sequence[Device], standing: Sequence[Placement]) -> Machine:
    taken = bytes_by_device(standing)
    return Machine(
        gpus=tuple(device.name for device in devices if device.kind == "cuda"),
        cpu=next((device.name for device in devices if device.kind == "cpu"), None),
        free={device.name: device.free_bytes - taken[device.name] for device in devices},
        busy=frozenset(taken),
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

"""Finds a place for every model of one step of the planner's order: which device takes which whole, which are spread.

Exhaustive for models that stay whole, so that more memory never makes a plan impossible. Called by `planner`, which
knows the order; knows nothing of quantisation beyond the footprints that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from model_registry.spec import ModelSpec
from playground.placement.footprint import Footprint
from playground.placement.plan import Quantisation, Share
from playground.placement.spreading import Part, cut_evenly, devices_needed, fits

Manner = Literal["whole", "spread", "offloaded"]


@dataclass(frozen=True, slots=True)
class Demand:
    """One model, as a step of the order asks for it.

    on_gpu, on_cpu: what it takes there, None where it may not go there.
    """

    spec: ModelSpec
    quantisation: Quantisation
    manner: Manner
    on_gpu: Footprint | None
    on_cpu: Footprint | None


@dataclass(frozen=True)
class Machine:
    """What is free, in bytes by device, when the models that stand already have theirs; `busy` are their devices."""

    gpus: tuple[str, ...]
    cpu: str | None
    free: Mapping[str, int]
    busy: frozenset[str] = frozenset()

    @cached_property
    def free_on_gpus(self) -> int:
        return sum(max(self.free[gpu], 0) for gpu in self.gpus)

    @cached_property
    def free_in_all(self) -> int:
        return self.free_on_gpus + (max(self.free[self.cpu], 0) if self.cpu else 0)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the models of a step go.

    cost: models on the CPU beside GPUs, GPUs that spread models use, models that share a device: the less the better.
    homes: the device of each whole or offloaded model, by its number in the step.
    line: the numbers of the spread models in the order in which they are cut, and `over` the devices.
    """

    cost: tuple[int, int, int]
    homes: Mapping[int, str]
    line: tuple[int, ...] = ()
    over: tuple[str, ...] = ()


def may_fit(demands: Sequence[Demand], machine: Machine) -> bool:
    """Whether the machine has enough memory in all for one full context of each; quick, and no more than a sieve."""
    on_gpus = in_all = 0
    for demand in demands:
        least = least_bytes(demand, 1)
        in_all += least
        on_gpus += least if demand.on_cpu is None and demand.manner != "offloaded" else 0
    return on_gpus <= machine.free_on_gpus and in_all <= machine.free_in_all


def least_bytes(demand: Demand, contexts: int) -> int:
    """Bytes that the model takes at the least, wherever it goes."""
    return min((sizes.whole_bytes(contexts) for sizes in (demand.on_gpu, demand.on_cpu) if sizes), default=0)


def find_layout(demands: Sequence[Demand], contexts: Sequence[int], machine: Machine) -> Layout | None:
    """The cheapest layout with room for these numbers of full contexts, one for each model."""
    return _Search(demands, contexts, machine).run()


def holds(layout: Layout, demands: Sequence[Demand], contexts: Sequence[int], machine: Machine) -> bool:
    """Whether a layout found for other numbers of contexts has room for these."""
    free = _free_beside(layout, demands, contexts, machine)
    if any(free[device] < 0 < machine.free[device] - free[device] for device in free):
        return False
    return fits(_parts(layout.line, demands, contexts), {device: free[device] for device in layout.over})


def shares(
    layout: Layout, demands: Sequence[Demand], contexts: Sequence[int], machine: Machine
) -> list[tuple[Share, ...]]:
    """What each model takes of each device, in the order of the demands; `holds` must be true."""
    free = _free_beside(layout, demands, contexts, machine)
    over = {gpu: free[gpu] for gpu in machine.gpus if gpu in layout.over}
    runs = cut_evenly(_parts(layout.line, demands, contexts), over) if layout.line else []
    found: dict[int, tuple[Share, ...]] = {}
    for number, some in zip(layout.line, runs, strict=True):
        sizes = _on(demands[number], some[0].device, machine)
        found[number] = tuple(sizes.share(run.device, run.first, run.last, contexts[number]) for run in some)
        free = _less(free, {share.device: share.total_bytes for share in found[number]})
    for number, home in layout.homes.items():
        sizes = _on(demands[number], home, machine)
        if demands[number].manner == "offloaded":
            found[number] = _offloaded(sizes, home, machine.cpu or "", contexts[number], free)
        else:
            found[number] = (sizes.share(home, 0, sizes.layers - 1, contexts[number]),)
    return [found[number] for number in range(len(demands))]


class _Search:
    """Branch and bound over the homes of whole models, the largest first; at each leaf the others are spread."""

    def __init__(self, demands: Sequence[Demand], contexts: Sequence[int], machine: Machine) -> None:
        self._demands, self._contexts, self._machine = demands, contexts, machine
        numbers = sorted(range(len(demands)), key=lambda number: -least_bytes(demands[number], contexts[number]))
        self._whole = [number for number in numbers if demands[number].manner != "spread"]
        self._spread = [number for number in numbers if demands[number].manner == "spread"]
        self._best: Layout | None = None

    def run(self) -> Layout | None:
        self._place(0, dict(self._machine.free), {}, (0, 1 if self._spread else 0, 0))
        return self._best

    def _place(self, depth: int, free: dict[str, int], homes: dict[int, str], cost: tuple[int, int, int]) -> None:
        if self._best is not None and cost >= self._best.cost:
            return
        if depth == len(self._whole):
            self._finish(free, homes, cost)
            return
        number = self._whole[depth]
        used = {*self._machine.busy, *homes.values()}
        for device, taken in self._candidates(number, free, used):
            on_cpu = device == self._machine.cpu and bool(self._machine.gpus)
            added = (cost[0] + on_cpu, cost[1], cost[2] + (device in used))
            self._place(depth + 1, _less(free, taken), {**homes, number: device}, added)

    def _candidates(self, number: int, free: Mapping[str, int], used: set[str]) -> Iterator[tuple[str, dict[str, int]]]:
        """Devices with room for the model and what it takes; empty ones and those with more room first.

        One of several alike stands for all of them.
        """
        alike = set()
        cpu = self._machine.cpu
        order = sorted(free, key=lambda device: (device == cpu, device in used, -free[device]))
        for device in order:
            taken = _taken(self._demands[number], device, self._contexts[number], self._machine)
            likeness = (device == cpu, device in used, free[device])
            if taken is None or likeness in alike:
                continue
            alike.add(likeness)
            if all(free[place] >= size for place, size in taken.items()):
                yield device, taken

    def _finish(self, free: Mapping[str, int], homes: dict[int, str], cost: tuple[int, int, int]) -> None:
        if not self._spread:
            self._best = Layout(cost, homes)
            return
        gpus = {gpu: free[gpu] for gpu in self._machine.gpus}
        for line in (tuple(self._spread), tuple(reversed(self._spread)))[: len(self._spread)]:
            over = devices_needed(_parts(line, self._demands, self._contexts), gpus)
            if over is not None:
                shared = sum(device in self._machine.busy or device in homes.values() for device in over)
                full = (cost[0], len(over), cost[2] + shared)
                if self._best is None or full < self._best.cost:
                    self._best = Layout(full, homes, line, over)


def _on(demand: Demand, device: str, machine: Machine) -> Footprint:
    sizes = demand.on_cpu if device == machine.cpu else demand.on_gpu
    assert sizes is not None, "nothing is placed where it may not go"
    return sizes


def _taken(demand: Demand, home: str, contexts: int, machine: Machine) -> dict[str, int] | None:
    """Bytes by device that a whole or offloaded model takes at the least; None where it may not go there."""
    sizes = demand.on_cpu if home == machine.cpu else demand.on_gpu
    if sizes is None:
        return None
    if demand.manner == "whole":
        return {home: sizes.whole_bytes(contexts)}
    if home == machine.cpu or machine.cpu is None or sizes.layers < 2:
        return None
    return {share.device: share.total_bytes for share in sizes.offloaded_shares(home, machine.cpu, 1, contexts)}


def _free_beside(
    layout: Layout, demands: Sequence[Demand], contexts: Sequence[int], machine: Machine
) -> dict[str, int]:
    """What the whole and offloaded models leave free."""
    free = dict(machine.free)
    for number, home in layout.homes.items():
        free = _less(free, _taken(demands[number], home, contexts[number], machine) or {})
    return free


def _offloaded(sizes: Footprint, gpu: str, cpu: str, contexts: int, free: dict[str, int]) -> tuple[Share, ...]:
    """As many blocks on the GPU as fit, where one is counted for already; what they take is taken from `free`."""
    more = min(free[gpu] // sizes.block_bytes, sizes.layers - 2)
    free[gpu] -= more * sizes.block_bytes
    return sizes.offloaded_shares(gpu, cpu, 1 + more, contexts)


def _parts(line: Sequence[int], demands: Sequence[Demand], contexts: Sequence[int]) -> list[Part]:
    footprints = [demands[number].on_gpu for number in line]
    return [Part(sizes, contexts[number]) for number, sizes in zip(line, footprints, strict=True) if sizes is not None]


def _less(free: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, int]:
    return {device: size - taken.get(device, 0) for device, size in free.items()}

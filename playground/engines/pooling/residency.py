"""Who is in the memory, and who leaves for a newcomer: as few as need to, the least recently used first.

Decides, and changes nothing: the pool, which owns the residents, acts on it. Knows neither threads nor engines at work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.pooling.loading import Loading, shared
from playground.errors import PlacementError
from playground.placement.plan import Placement
from playground.placement.site import Site


@dataclass(eq=False, slots=True)
class Resident:
    """One model with a place: on its way, there, or leaving.

    users: streams that wait for it or are answered by it.
    last_used: the pool's count of events when the last of these came or went.
    gone: set when its memory is free again.
    """

    spec: ModelSpec
    placement: Placement
    loading: Loading
    last_used: int
    users: int = 0
    gone: Future[None] = field(default_factory=lambda: shared(Future()))

    @property
    def engine(self) -> Engine | None:
        """None while it is on its way."""
        return self.loading.arrived.result() if self.loading.is_done else None

    @property
    def is_idle(self) -> bool:
        return self.users == 0

    @property
    def is_dead(self) -> bool:
        """Whether its engine ended by itself."""
        return self.engine is not None and not self.engine.alive

    @property
    def doing(self) -> str:
        return "is answering" if self.loading.is_done else "is being loaded"


@dataclass(frozen=True, slots=True)
class Room:
    """Where newcomers go, one placement a model, and which residents leave for it."""

    specs: Sequence[ModelSpec]
    placements: Sequence[Placement]
    leaving: Sequence[Resident]

    def has(self, model_id: str) -> bool:
        return any(placement.model_id == model_id for placement in self.placements)


def make_room(
    newcomers: Sequence[ModelSpec], residents: Sequence[Resident], idle: Sequence[Resident], site: Site
) -> Room:
    """Room for the newcomers.

    An idle resident leaves also where the newcomers would find room beside it, but only with weights in fewer bits:
    what nobody is being answered by is no reason to answer worse.

    Args:
        newcomers: the models to place, together.
        residents: all that have a place.
        idle: those of them that may leave.
        site: this machine.

    Raises:
        PlacementError: there is no room even so; the sentence is the planner's own where an empty machine would not
            do either, and else names the residents in the way.
    """
    best = site.find(newcomers, _placements(residents, idle))
    if best is None:
        site.plan(newcomers)
        staying = [resident for resident in residents if resident not in idle]
        raise PlacementError(_in_the_way(newcomers, _in_whose_way(newcomers, staying, site)))

    def is_enough(leaving: Sequence[Resident]) -> bool:
        found = site.find(newcomers, _placements(residents, leaving))
        return found is not None and loss(found.placements) <= loss(best.placements)

    leaving = _fewest(idle, is_enough)
    plan = best if len(leaving) == len(idle) else site.find(newcomers, _placements(residents, leaving))
    assert plan is not None, "it was enough"
    return Room(newcomers, [plan.of(spec.id) for spec in newcomers], leaving)


def _in_whose_way(newcomers: Sequence[ModelSpec], staying: Sequence[Resident], site: Site) -> Sequence[Resident]:
    return _fewest(staying, lambda leaving: site.find(newcomers, _placements(staying, leaving)) is not None)


def _fewest(candidates: Sequence[Resident], is_enough: Callable[[Sequence[Resident]], bool]) -> Sequence[Resident]:
    """Who has to leave, the least recently used first; all of them are enough."""
    queue = sorted(candidates, key=lambda resident: resident.last_used)
    leaving = next((queue[:count] for count in range(len(queue)) if is_enough(queue[:count])), queue)
    for resident in reversed(leaving):  # one of an earlier place in the queue may stand on another device
        rest = [other for other in leaving if other is not resident]
        leaving = rest if is_enough(rest) else leaving
    return leaving


def loss(placements: Iterable[Placement]) -> tuple[int, int, int]:
    """How many of them answer worse or slower than they could: offloaded, with 4-bit weights, with 8-bit weights."""
    found = list(placements)
    offloaded = sum(placement.is_spread and placement.shares[-1].device == "cpu" for placement in found)
    bits = Counter(placement.quantisation for placement in found)
    return offloaded, bits["4-bit"], bits["8-bit"]


def _placements(residents: Sequence[Resident], leaving: Sequence[Resident]) -> list[Placement]:
    return [resident.placement for resident in residents if resident not in leaving]


def _in_the_way(newcomers: Sequence[ModelSpec], staying: Sequence[Resident]) -> str:
    names = " and ".join(spec.name for spec in newcomers)
    doing = ", ".join(f"{resident.spec.name} {resident.doing}" for resident in staying)
    if len(staying) == 1:
        return f"{doing} and cannot make room for {names}: wait until it is done, or stop it."
    return f"{doing}; they cannot make room for {names}: wait until they are done, or stop them."

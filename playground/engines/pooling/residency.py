"""Who is in the memory, and who leaves for a newcomer: as few as need to, the least recently used first.

Decides, and changes nothing: the pool, which owns the residents, acts on it. Knows neither threads nor engines at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.pooling.loading import Loading, shared
from playground.errors import PlacementError
from playground.placement.plan import Placement, PlacementPlan
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


def make_room(
    newcomers: Sequence[ModelSpec], residents: Sequence[Resident], idle: Sequence[Resident], site: Site
) -> tuple[PlacementPlan, Sequence[Resident]]:
    """Where the newcomers go, and which residents leave for it.

    Args:
        newcomers: the models to place, together.
        residents: all that have a place.
        idle: those of them that may leave.
        site: this machine.

    Raises:
        PlacementError: there is no room even so; the sentence is the planner's own where an empty machine would not
            do either, and else names the residents in the way.
    """
    leaving = _fewest(newcomers, residents, idle, site)
    plan = None if leaving is None else site.find(newcomers, _placements(residents, leaving))
    if leaving is None or plan is None:
        site.plan(newcomers)
        staying = [resident for resident in residents if resident not in idle]
        raise PlacementError(_in_the_way(newcomers, _fewest(newcomers, staying, staying, site) or staying))
    return plan, leaving


def _fewest(
    newcomers: Sequence[ModelSpec], residents: Sequence[Resident], candidates: Sequence[Resident], site: Site
) -> Sequence[Resident] | None:
    """The candidates without whom there is room; None where there is not even without all of them."""

    def fits_without(leaving: Sequence[Resident]) -> bool:
        return site.find(newcomers, _placements(residents, leaving)) is not None

    queue = sorted(candidates, key=lambda resident: resident.last_used)
    counts = range(len(queue) + 1)
    leaving = next((queue[:count] for count in counts if fits_without(queue[:count])), None)
    for resident in reversed(leaving or []):  # one of an earlier place in the queue may stand on another device
        rest = [other for other in leaving or [] if other is not resident]
        leaving = rest if fits_without(rest) else leaving
    return leaving


def _placements(residents: Sequence[Resident], leaving: Sequence[Resident]) -> list[Placement]:
    return [resident.placement for resident in residents if resident not in leaving]


def _in_the_way(newcomers: Sequence[ModelSpec], staying: Sequence[Resident]) -> str:
    names = " and ".join(spec.name for spec in newcomers)
    doing = ", ".join(f"{resident.spec.name} {resident.doing}" for resident in staying)
    if len(staying) == 1:
        return f"{doing} and cannot make room for {names}: wait until it is done, or stop it."
    return f"{doing}; they cannot make room for {names}: wait until they are done, or stop them."

"""Who comes and who leaves for them: as few as need to, the least recently used first.

A base takes its views along; it is used whenever they are, so they are never used later than it is. Decides, and
changes nothing: the roster, which owns the residents, acts on it. Knows neither threads nor engines at work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.pooling.resident import Resident
from playground.errors import EngineBusyError, PlacementError
from playground.placement.explain import listed
from playground.placement.plan import Placement
from playground.placement.site import Site
from playground.placement.views import View


@dataclass(frozen=True, slots=True)
class Room:
    """New residents, each after its base, and those who leave for them."""

    arriving: Sequence[Resident]
    leaving: Sequence[Resident]


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
        staying = _without(idle, residents)
        in_the_way = _fewest(staying, lambda some: site.find(newcomers, _placements(staying, some)) is not None)
        raise PlacementError(_in_the_way(listed([spec.name for spec in newcomers]), in_the_way))

    def is_enough(leaving: Sequence[Resident]) -> bool:
        found = site.find(newcomers, _placements(residents, leaving))
        return found is not None and loss(found.placements) <= loss(best.placements)

    leaving = _fewest(idle, is_enough)
    plan = best if len(leaving) == len(idle) else site.find(newcomers, _placements(residents, leaving))
    assert plan is not None, "it was enough"
    return Room([Resident(spec, plan.of(spec.id)) for spec in newcomers], leaving)


def make_room_together(specs: Sequence[ModelSpec], residents: Sequence[Resident], site: Site) -> Room | None:
    """Room for models that will be asked together, some of which may be there; None where they do not fit together.

    None of them leaves for another. Where the new ones do not fit beside those that are there, or only with worse
    weights, the idle ones of these are placed anew.
    """
    there = {resident.spec.id for resident in residents if resident.host is None}
    newcomers = [spec for spec in specs if spec.id not in there]
    idle = [resident for resident in residents if resident.is_idle]
    fellows = [resident for resident in idle if resident.host is None and resident.spec in specs]
    beside = _room(newcomers, residents, _without(fellows, idle, with_views=False), site)
    if not fellows:
        return beside
    anew = _room(
        [*newcomers, *(one.spec for one in fellows)], _without(fellows, residents), _without(fellows, idle), site
    )
    if anew is None:
        return beside
    if beside is not None and _loss_of(anew.arriving) >= _loss_of([*beside.arriving, *fellows]):
        return beside
    return replace(anew, leaving=[*fellows, *anew.leaving])


def make_room_for_view(
    spec: ModelSpec, adapter: CheckedAdapter, scale: float, residents: Sequence[Resident], site: Site
) -> Room:
    """Room for a model with an adapter, and for the model itself where that is not there.

    Beyond the number of views that a model may have, one of its idle views leaves.

    Raises:
        PlacementError: there is no room even where all leave who may; says what is missing, and what would help.
        EngineBusyError: all of the views that the model may have are in use.
    """
    host = next((one for one in residents if one.spec.id == spec.id and one.host is None), None)
    if host is not None:
        return _beside(host, adapter, scale, residents, site)
    room = make_room([spec], residents, [one for one in residents if one.is_idle], site)
    [host] = room.arriving
    view_room = _beside(host, adapter, scale, [*_without(room.leaving, residents), host], site)
    return Room([host, *view_room.arriving], [*room.leaving, *view_room.leaving])


def loss(placements: Iterable[Placement]) -> tuple[int, int, int]:
    """How many of them answer worse or slower than they could: offloaded, with 4-bit weights, with 8-bit weights."""
    found = list(placements)
    offloaded = sum(placement.is_spread and placement.shares[-1].device == "cpu" for placement in found)
    bits = Counter(placement.quantisation for placement in found)
    return offloaded, bits["4-bit"], bits["8-bit"]


def _beside(host: Resident, adapter: CheckedAdapter, scale: float, residents: Sequence[Resident], site: Site) -> Room:
    """Room for a view; its base is among the residents, and stays."""
    view = View(host.spec, host.placement, adapter, scale)
    surplus = _surplus(host, residents, site.options.views)
    staying = _without(surplus, residents)
    idle = [one for one in staying if one.is_idle and one is not host]
    if site.find_view(view, _placements(staying, idle)) is None:
        raise PlacementError(_no_room_for(view, host, _without(idle, staying), site))
    leaving = _fewest(idle, lambda some: site.find_view(view, _placements(staying, some)) is not None)
    place = site.find_view(view, _placements(staying, leaving))
    assert place is not None, "it was enough"
    return Room([Resident(host.spec, place, view, host)], [*surplus, *leaving])


def _surplus(host: Resident, residents: Sequence[Resident], most: int) -> Sequence[Resident]:
    """Which of the base's views leaves for another one, where so many are there already. Raises EngineBusyError."""
    views = [one for one in residents if one.host is host]
    if len(views) < most:
        return []
    idle = [one for one in views if one.is_idle]
    if not idle:
        raise EngineBusyError(
            f"{host.spec.name} is answering with {len(views)} adapters, and no more can be used at a time: wait until "
            "one of these answers is done, or stop it."
        )
    return [min(idle, key=lambda one: one.last_used)]


def _no_room_for(view: View, host: Resident, staying: Sequence[Resident], site: Site) -> str:
    missing = f"{view.name} has no room beside its base: {site.missing(view, _placements(staying, []))}."
    others = _without([host], staying, with_views=False)
    in_the_way = _fewest(others, lambda some: site.find_view(view, _placements(staying, some)) is not None)
    options = site.remedy(view, [one.spec for one in in_the_way if one.host is None])
    if site.find_view(view, _placements(staying, in_the_way)) is not None:
        restart = f" Or start the playground with {options}." if options else ""
        return f"{missing} {_in_the_way(view.name, in_the_way)}{restart}"
    if options:
        return f"{missing} Start the playground with {options} to leave room for it."
    return f"{missing} Use {host.spec.name} without an adapter, or a device with more memory."


def _room(
    specs: Sequence[ModelSpec], residents: Sequence[Resident], idle: Sequence[Resident], site: Site
) -> Room | None:
    try:
        return make_room(specs, residents, idle, site)
    except PlacementError:
        return None


def _fewest(candidates: Sequence[Resident], is_enough: Callable[[Sequence[Resident]], bool]) -> Sequence[Resident]:
    """Who has to leave, the least recently used first; all of them are enough."""
    queue = sorted(candidates, key=lambda resident: resident.last_used)
    leaving = next((queue[:count] for count in range(len(queue)) if is_enough(queue[:count])), queue)
    for resident in reversed(leaving):  # one of an earlier place in the queue may stand on another device
        rest = [other for other in leaving if other is not resident]
        leaving = rest if is_enough(rest) else leaving
    return leaving


def _without(leaving: Sequence[Resident], residents: Sequence[Resident], *, with_views: bool = True) -> list[Resident]:
    """Who stays when some leave, and their views with them."""
    return [one for one in residents if one not in leaving and not (with_views and one.host in leaving)]


def _placements(residents: Sequence[Resident], leaving: Sequence[Resident]) -> list[Placement]:
    return [resident.placement for resident in _without(leaving, residents)]


def _loss_of(residents: Iterable[Resident]) -> tuple[int, int, int]:
    return loss(resident.placement for resident in residents)


def _in_the_way(newcomer: str, staying: Sequence[Resident]) -> str:
    doing = ", ".join(f"{resident.name} {resident.doing}" for resident in staying)
    if len(staying) == 1:
        return f"{doing} and cannot make room for {newcomer}: wait until it is done, or stop it."
    return f"{doing}; they cannot make room for {newcomer}: wait until they are done, or stop them."

"""Who leaves for a newcomer: the fewest, the least recently used first, and nobody who stands elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from adapter_shelf import checked
from fakes import spec

from model_registry.spec import ModelSpec
from playground.engines.pooling.residency import make_room, make_room_for_view
from playground.engines.pooling.resident import Resident
from playground.errors import PlacementError
from playground.placement.plan import Placement, PlacementPlan, PlanOptions, Share
from playground.placement.views import View

HOMES = {"left": 2, "right": 1}
"""How many models each of these devices holds; a model's name begins with its device."""


def place(model: ModelSpec) -> Placement:
    share = Share(model.id.split("-")[0], 0, 0, 1, 1, 1)
    return Placement(model.id, "float32", "none", 1, (share,), f"{model.name}: whole on {share.device}")


class Homes:
    """A site on which a place is a matter of counting."""

    def find(self, newcomers: Sequence[ModelSpec], standing: Sequence[Placement] = ()) -> PlacementPlan | None:
        placements = [place(model) for model in newcomers]
        taken = Counter(placement.device for placement in [*standing, *placements])
        if any(taken[placement.device] > HOMES.get(placement.device, 0) for placement in placements):
            return None
        return PlacementPlan(tuple(placements))

    def plan(self, newcomers: Sequence[ModelSpec]) -> PlacementPlan:
        found = self.find(newcomers)
        if found is None:
            raise PlacementError(f"{newcomers[-1].name} does not fit.")
        return found


def residents(*model_ids: str) -> list[Resident]:
    """The least recently used first."""
    models = [spec(model_id) for model_id in model_ids]
    return [Resident(model, place(model), last_used=last_used) for last_used, model in enumerate(models)]


def leavers(newcomers: Sequence[str], present: Sequence[Resident], idle: Sequence[Resident]) -> list[str]:
    room = make_room([spec(model_id) for model_id in newcomers], present, idle, Homes())
    return [resident.spec.id for resident in room.leaving]


def test_nobody_leaves_where_there_is_room() -> None:
    present = residents("left-1", "right-1")
    assert leavers(["left-2"], present, present) == []


def test_the_least_recently_used_leaves() -> None:
    present = residents("left-1", "left-2")
    assert leavers(["left-3"], present, present) == ["left-1"]
    assert leavers(["left-3"], present, present[::-1]) == ["left-1"]


def test_as_many_leave_as_need_to() -> None:
    present = residents("left-1", "left-2")
    assert leavers(["left-3", "left-4"], present, present) == ["left-1", "left-2"]


def test_whoever_stands_elsewhere_stays_however_long_it_was_not_used() -> None:
    present = residents("right-1", "left-1", "left-2")
    assert leavers(["left-3"], present, present) == ["left-1"]


def test_only_the_idle_leave() -> None:
    present = residents("left-1", "left-2")
    assert leavers(["left-3"], present, present[1:]) == ["left-2"]


def test_the_sentence_names_those_in_the_way_and_nobody_else() -> None:
    present = residents("right-1", "left-1", "left-2")
    with pytest.raises(PlacementError, match=r"^RIGHT-1 is being loaded and cannot make room for RIGHT-2: wait until"):
        leavers(["right-2"], present, present[1:])
    with pytest.raises(PlacementError) as told:
        leavers(["left-3", "left-4"], present, [])
    assert str(told.value) == (
        "LEFT-1 is being loaded, LEFT-2 is being loaded; they cannot make room for LEFT-3 and LEFT-4: "
        "wait until they are done, or stop them."
    )


def test_what_an_empty_machine_cannot_hold_is_the_planners_to_say() -> None:
    present = residents("left-1")
    with pytest.raises(PlacementError, match=r"^NOWHERE-1 does not fit\.$"):
        leavers(["nowhere-1"], present, [])


class Desks(Homes):
    """On which a view stands beside its base, where less than so many do."""

    def __init__(self, views: int) -> None:
        self.options = PlanOptions(views=views)

    def find_view(self, view: View, standing: Sequence[Placement]) -> Placement | None:
        taken = sum(placement.device == view.base.device for placement in standing)
        return place(view.spec) if taken < HOMES[view.base.device] else None

    def missing(self, view: View, standing: Sequence[Placement]) -> str:
        return "a desk is missing"

    def remedy(self, view: View, others: Sequence[ModelSpec]) -> str:
        return f"fewer of {', '.join(spec.name for spec in others)}" if others else ""


def test_a_base_that_leaves_takes_its_views_along() -> None:
    (base,) = residents("left-1")
    view = Resident(base.spec, base.placement, View(base.spec, base.placement, checked("formal")), base, last_used=-1)
    room = make_room([spec("left-2"), spec("left-3")], [base, view], [base, view], Homes())
    assert room.leaving == [base]


def test_a_view_brings_its_base_and_both_have_room_or_neither_comes() -> None:
    present = residents("left-1", "left-2")
    room = make_room_for_view(spec("left-3"), checked("formal"), 1.0, present, Desks(8))
    assert [one.label.model_id for one in room.arriving] == ["left-3", "left-3"]
    assert room.arriving[1].host is room.arriving[0]
    assert [one.spec.id for one in room.leaving] == ["left-1", "left-2"]
    with pytest.raises(PlacementError, match=r"^RIGHT-1 with formal has no room beside its base: a desk is"):
        make_room_for_view(spec("right-1"), checked("formal"), 1.0, present, Desks(8))


def test_who_answers_is_in_a_views_way_and_options_that_would_help_are_named() -> None:
    busy, host = residents("left-1", "left-2")
    busy.users = 1
    with pytest.raises(PlacementError) as told:
        make_room_for_view(host.spec, checked("formal"), 0.5, [busy, host], Desks(8))
    assert str(told.value) == (
        "LEFT-2 with formal at 0.5 has no room beside its base: a desk is missing. LEFT-1 is being loaded and cannot "
        "make room for LEFT-2 with formal at 0.5: wait until it is done, or stop it. "
        "Or start the playground with fewer of LEFT-1."
    )

"""The real catalog on imagined cards: nobody answers worse for the sake of a model that answers nobody."""

from __future__ import annotations

import asyncio

import pytest
from adapter_shelf import Shelf
from held_engines import HeldAttach, HeldEngine, HeldLoads
from pool_panel import Panel

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.errors import PlacementError
from playground.placement.plan import Device, Placement, PlanOptions

KRUTRIM, KULLM, POLYGLOT = "krutrim-1-instruct", "kullm3", "kullm-polyglot-5.8b-v2"


class Card:
    """A pool with one GPU; `came` lets the loads that are due arrive."""

    def __init__(self, gib: float) -> None:
        size = int(0.97 * gib * 2**30)
        self.loads = HeldLoads()
        gpu = Device("cuda:0", "cuda", size, size)
        self.pool = EnginePool(Registry.load(), [gpu], PlanOptions(), self.loads, Shelf())
        self.placed: dict[str, Placement] = {}

    async def came(self, *model_ids: str) -> list[HeldEngine]:
        loads = [await self.loads.next(model_id) for model_id in model_ids]
        self.placed |= {load.spec.id: load.placement for load in loads}
        engines = [load.arrive() for load in loads]
        while any(self.pool.status(model_id).state == "loading" for model_id in model_ids):
            await asyncio.sleep(0.01)
        return engines

    def bits(self) -> dict[str, str]:
        """Of those that are there."""
        there = [model_id for model_id in self.placed if self.pool.status(model_id).state == "ready"]
        return {model_id: self.placed[model_id].quantisation for model_id in there}


@pytest.mark.parametrize(
    ("gib", "residents", "newcomer", "left"),
    [
        (48, [KRUTRIM, KULLM], POLYGLOT, {KULLM: "none", POLYGLOT: "none"}),
        (32, [KULLM], KRUTRIM, {KRUTRIM: "none"}),
        (80, [KRUTRIM, KULLM], POLYGLOT, {KRUTRIM: "none", KULLM: "none", POLYGLOT: "none"}),
    ],
)
async def test_an_idle_model_leaves_before_a_newcomer_is_quantised(
    gib: float, residents: list[str], newcomer: str, left: dict[str, str]
) -> None:
    card = Card(gib)
    for resident in residents:
        card.pool.preload([resident])
        await card.came(resident)
    panel = Panel(card.pool, newcomer)
    [engine] = await card.came(newcomer)
    engine.finish()
    await panel.end()
    assert card.bits() == left
    await card.pool.close()


async def test_models_asked_together_are_placed_anew_where_both_answer_better_so() -> None:
    card = Card(40)
    card.pool.preload([KULLM])
    await card.came(KULLM)
    card.pool.preload([KRUTRIM, KULLM])
    await card.came(KRUTRIM, KULLM)
    assert card.bits() == {KULLM: "none", KRUTRIM: "none"}
    assert card.loads.count(KULLM) == 2
    await card.pool.close()


async def test_a_model_that_is_answering_is_not_moved_for_its_fellow() -> None:
    card = Card(40)
    panel = Panel(card.pool, KULLM)
    [engine] = await card.came(KULLM)
    await panel.speaks()
    card.pool.preload([KRUTRIM, KULLM])
    await card.came(KRUTRIM)
    assert card.bits() == {KULLM: "none", KRUTRIM: "8-bit"}
    assert card.loads.count(KULLM) == 1
    engine.finish()
    await panel.end()
    await card.pool.close()


async def test_models_asked_together_do_not_drive_each_other_out() -> None:
    card = Card(24)
    card.pool.preload([KULLM])
    await card.came(KULLM)
    card.pool.preload([KULLM, KRUTRIM])
    await card.came(KULLM, KRUTRIM)
    assert card.bits() == {KULLM: "8-bit", KRUTRIM: "8-bit"}
    await card.pool.close()


async def test_two_adapters_of_a_large_model_are_compared_beside_it() -> None:
    card = Card(36)
    views = await with_views(card, KULLM, "formal", "casual")
    assert card.placed[KULLM].kv_tokens == 4 * 4096
    assert [view.kv_tokens // 4096 for view in views] == [4, 4]
    await card.pool.close()


async def test_where_the_room_is_short_the_first_view_leaves_some_for_another() -> None:
    card = Card(28.5)
    views = await with_views(card, KULLM, "formal", "casual")
    assert [view.kv_tokens // 4096 for view in views] == [2, 1]  # alone, the first would have had 3
    await card.pool.close()


async def test_a_view_that_a_card_cannot_hold_is_refused_with_what_would_help() -> None:
    card = Card(24)
    card.pool.preload([KULLM])
    await card.came(KULLM)
    with pytest.raises(PlacementError) as told:
        await Panel(card.pool, KULLM, "formal").end()
    assert str(told.value) == (
        "KULLM3 with formal has no room beside its base: 1.3 GB on cuda:0 are missing. "
        "Start the playground with --contexts 1 to leave room for it."
    )
    await card.pool.close()


async def test_an_idle_model_leaves_for_a_view_and_one_that_answers_is_named() -> None:
    card = Card(40)
    answering = Panel(card.pool, KRUTRIM)
    [krutrim] = await card.came(KRUTRIM)
    card.pool.preload([KULLM])
    [kullm] = await card.came(KULLM)
    await answering.speaks()
    with pytest.raises(PlacementError) as told:
        await Panel(card.pool, KULLM, "formal").end()
    assert str(told.value) == (
        "KULLM3 with formal has no room beside its base: 0.8 GB on cuda:0 are missing. "
        "Krutrim-1 Instruct is answering and cannot make room for KULLM3 with formal: wait until it is done, or stop "
        "it. Or start the playground with --contexts 1."
    )
    krutrim.finish()
    await answering.end()
    panel = Panel(card.pool, KULLM, "formal")
    (await kullm.next_view()).arrive().finish()
    assert await panel.end() == "one end"
    assert card.bits() == {KULLM: "none"}
    await card.pool.close()


async def test_an_idle_view_leaves_before_a_newcomer_is_quantised() -> None:
    card = Card(44)
    await with_views(card, KULLM, "formal", "casual")
    card.pool.preload([KULLM, KRUTRIM])
    [krutrim] = await card.came(KRUTRIM)
    assert card.bits() == {KULLM: "none", KRUTRIM: "none"}
    assert "gone kullm3+formal" in card.loads.diary
    krutrim.finish()
    await card.pool.close()


async def with_views(card: Card, model_id: str, *adapters: str) -> list[HeldAttach]:
    """The model, and views of it that answer one after the other and at the same time."""
    card.pool.preload([model_id])
    [base] = await card.came(model_id)
    panels, views = [], []
    for adapter in adapters:
        panels.append(Panel(card.pool, model_id, adapter))
        views.append(await base.next_view())
        views[-1].arrive()
        await panels[-1].speaks()
    for panel in panels:
        await panel.go_away()
    return views

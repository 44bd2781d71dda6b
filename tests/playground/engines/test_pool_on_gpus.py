"""The real catalog on imagined cards: nobody answers worse for the sake of a model that answers nobody."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import HeldEngine, HeldLoads, Panel

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.placement.plan import Device, Placement, PlanOptions

KRUTRIM, KULLM, POLYGLOT = "krutrim-1-instruct", "kullm3", "kullm-polyglot-5.8b-v2"


class Card:
    """A pool with one GPU; `came` lets the loads that are due arrive."""

    def __init__(self, gib: float) -> None:
        size = int(0.97 * gib * 2**30)
        self.loads = HeldLoads()
        self.pool = EnginePool(Registry.load(), [Device("cuda:0", "cuda", size, size)], PlanOptions(), self.loads)
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

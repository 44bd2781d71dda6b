"""The pool with the real library, the stand-in for Krutrim and its adapters, in an engine process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from process_room import engine_processes

from model_registry.registry import Registry
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary
from playground.engines.pool import EnginePool
from playground.errors import AdapterError, EngineError
from playground.placement.plan import Device, PlanOptions
from playground.types import (
    AdapterUse,
    EngineLabel,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    SamplingParams,
    StreamEvent,
)

BASE, FORMAL, CASUAL = "demo-krutrim", "krutrim-formal", "krutrim-casual"
QUESTION = "आप कैसे हैं?"


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[EnginePool]:
    registry = Registry.load()
    library = AdapterLibrary(registry, [], AdapterStore(tmp_path), KnownLayers(find_layers), typed_folders=False)
    plenty = Device("cpu", "cpu", 64 * 10**9, 64 * 10**9)
    made = EnginePool(registry, [plenty], PlanOptions(contexts=1, views=2), adapters=library)
    yield made
    await made.close()


async def collect(pool: EnginePool, adapter: AdapterUse | None = None, max_new_tokens: int = 24) -> list[StreamEvent]:
    request = GenerationRequest(
        model_id=BASE,
        adapter=adapter,
        messages=(Message(role="user", content=QUESTION),),
        sampling=SamplingParams(temperature=0, max_new_tokens=max_new_tokens),
    )
    async with asyncio.timeout(100):
        return [event async for event in pool.stream(request)]


async def answer(pool: EnginePool, adapter: AdapterUse | None = None) -> str:
    return "".join(event.delta for event in await collect(pool, adapter) if isinstance(event, GenerationChunk))


async def test_base_and_adapters_answer_side_by_side_from_one_process(pool: EnginePool) -> None:
    before = set(engine_processes())
    formal, casual = [(await pool.adapter(BASE, name)).use() for name in (FORMAL, CASUAL)]
    alone = [await answer(pool), await answer(pool, formal), await answer(pool, casual)]
    assert len(set(alone)) == 3
    together = await asyncio.gather(answer(pool), answer(pool, formal), answer(pool, casual), answer(pool))
    assert together == [*alone, alone[0]]
    assert len(set(engine_processes()) - before) == 1
    labels = [label for label, _ in pool.memory()[0].engines]
    assert labels == [EngineLabel(BASE), EngineLabel(BASE, formal), EngineLabel(BASE, casual)]


async def test_the_third_view_sends_the_first_away_and_it_comes_back(pool: EnginePool) -> None:
    checked = await pool.adapter(BASE, FORMAL)
    first, *others = [checked.use(scale) for scale in (1.0, 0.5, 2.0)]
    said = await answer(pool, first)
    for use in others:
        await answer(pool, use)
    assert [label.adapter for label, _ in pool.memory()[0].engines] == [None, *others]
    again = await collect(pool, first)
    assert isinstance(again[0], LoadProgress)
    assert "".join(event.delta for event in again if isinstance(event, GenerationChunk)) == said


async def test_at_scale_0_it_answers_as_its_base(pool: EnginePool) -> None:
    none = (await pool.adapter(BASE, FORMAL)).use(0)
    assert await answer(pool, none) == await answer(pool)


async def test_a_killed_process_takes_the_views_and_the_next_request_brings_both_back(pool: EnginePool) -> None:
    before = set(engine_processes())
    formal = (await pool.adapter(BASE, FORMAL)).use()
    said = await answer(pool, formal)
    (pid,) = set(engine_processes()) - before
    asked = asyncio.create_task(collect(pool, formal, 400))
    psutil.Process(pid).kill()
    with pytest.raises(EngineError):
        await asked
    assert await answer(pool, formal) == said


async def test_an_unloaded_model_leaves_nothing(pool: EnginePool) -> None:
    before = set(engine_processes())
    await answer(pool, (await pool.adapter(BASE, FORMAL)).use())
    await pool.unload(BASE)
    assert set(engine_processes()) == before
    assert pool.memory()[0].engines == ()


async def test_an_adapter_of_another_model_is_refused_before_anything_loads(pool: EnginePool) -> None:
    assert [choice.id for choice in pool.adapters(BASE)] == [CASUAL, FORMAL]
    with pytest.raises(AdapterError, match="names 'Wqkv', which this model has not"):
        await pool.adapter("demo-kullm3", FORMAL)
    stale = AdapterUse(id=FORMAL, revision="sha256:" + "0" * 64)
    with pytest.raises(AdapterError, match="has changed since it was chosen"):
        await collect(pool, stale)
    assert pool.status(BASE).state == "local"

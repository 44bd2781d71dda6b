"""The pool over engines in processes of their own: memory that comes back, loads that end, processes that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from process_room import engine_processes, load_forever, until
from tiny import write_tiny_model

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.engines.process import start_engine
from playground.errors import EngineBusyError, EngineError, LoadCancelledError
from playground.placement.plan import Device, PlanOptions
from playground.placement.planner import plan
from playground.types import (
    EngineLabel,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    SamplingParams,
    StreamEvent,
)

PLENTY = Device("cpu", "cpu", 64 * 10**9, 64 * 10**9)
WHOLE = PlanOptions(contexts=1, quantisation="none")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    files = [write_tiny_model(tmp_path, name, hidden=768, seed=seed) for seed, name in enumerate(("one", "two"))]
    return Registry.load(*files)


@pytest.fixture
def room_for_one(registry: Registry) -> Device:
    size = plan([registry.get("one")], [PLENTY], WHOLE).of("one").total_bytes
    return Device("cpu", "cpu", 64 * 10**9, int(1.2 * size))


@pytest.fixture
async def small_pool(registry: Registry, room_for_one: Device) -> AsyncIterator[EnginePool]:
    pool = EnginePool(registry, [room_for_one], WHOLE)
    yield pool
    await pool.close()


def ask(model_id: str, max_new_tokens: int = 24) -> GenerationRequest:
    sampling = SamplingParams(temperature=5, seed=1, max_new_tokens=max_new_tokens)
    return GenerationRequest(model_id=model_id, messages=(Message(role="user", content="hi"),), sampling=sampling)


async def collect(pool: EnginePool, request: GenerationRequest) -> list[StreamEvent]:
    async with asyncio.timeout(60):
        return [event async for event in pool.stream(request)]


async def answer(pool: EnginePool, model_id: str) -> str:
    events = await collect(pool, ask(model_id))
    return "".join(event.delta for event in events if isinstance(event, GenerationChunk))


def memory_of(pid: int) -> int:
    """Bytes that would be free if the process ended."""
    return psutil.Process(pid).memory_full_info().uss


async def test_switching_to_another_model_frees_the_formers_memory(small_pool: EnginePool) -> None:
    before = set(engine_processes())
    first = await answer(small_pool, "one")
    (former,) = set(engine_processes()) - before
    weights = 4 * small_pool.registry.get("one").parameters
    alone = memory_of(former)
    assert alone > weights
    assert await answer(small_pool, "two") != first
    assert not psutil.pid_exists(former)
    (latter,) = set(engine_processes()) - before
    assert memory_of(latter) < alone + weights / 2
    assert [small_pool.status(model_id).state for model_id in ("one", "two")] == ["local", "ready"]
    assert [label for label, _ in small_pool.memory()[0].engines] == [EngineLabel("two")]
    assert await answer(small_pool, "one") == first
    await small_pool.unload("one")
    assert set(engine_processes()) == before
    assert small_pool.memory()[0].engines == ()


async def test_a_model_that_answers_is_not_sent_away(small_pool: EnginePool) -> None:
    said: list[StreamEvent] = []
    async for event in small_pool.stream(ask("one", 40)):
        if isinstance(event, GenerationChunk) and not said:
            with pytest.raises(EngineBusyError, match="Tiny one is answering"):
                await small_pool.unload("one")
        said += [event] if isinstance(event, GenerationChunk) else []
    assert said[-1].finish_reason == "length"  # type: ignore[union-attr]


async def test_a_killed_process_is_a_sentence_and_the_next_request_loads_anew(small_pool: EnginePool) -> None:
    before = set(engine_processes())
    first = await answer(small_pool, "one")
    (pid,) = set(engine_processes()) - before
    asked = asyncio.create_task(collect(small_pool, ask("one", 100)))
    psutil.Process(pid).kill()
    with pytest.raises(EngineError, match="Tiny one"):
        await asked
    assert small_pool.status("one").state == "local"
    events = await collect(small_pool, ask("one"))
    assert any(isinstance(event, LoadProgress) for event in events)
    assert "".join(event.delta for event in events if isinstance(event, GenerationChunk)) == first


async def test_preloaded_models_stand_in_two_processes_and_answer_at_once(registry: Registry) -> None:
    before = set(engine_processes())
    pool = EnginePool(registry, [PLENTY], WHOLE)
    try:
        pool.preload(["one", "two"])
        one, two = await asyncio.gather(answer(pool, "one"), answer(pool, "two"))
        assert one != two
        assert len(set(engine_processes()) - before) == 2
        (report,) = pool.memory()
        assert sorted(label.model_id for label, _ in report.engines) == ["one", "two"]
    finally:
        await pool.close()
    assert set(engine_processes()) == before


async def test_a_cancelled_load_ends_its_process_however_deaf_it_is(registry: Registry, room_for_one: Device) -> None:
    before = set(engine_processes())
    pool = EnginePool(registry, [room_for_one], WHOLE, partial(start_engine, load=load_forever))
    waiting = asyncio.create_task(collect(pool, ask("one")))
    await until(lambda: pool.status("one").progress == LoadProgress("weights", 1, 2))
    pool.cancel("one")
    with pytest.raises(LoadCancelledError, match="Loading Tiny one was cancelled"):
        await waiting
    await pool.unload("one")  # nothing to unload, but something to wait for
    assert set(engine_processes()) == before
    assert pool.status("one").state == "local"
    pool.preload(["two"])
    await until(lambda: pool.status("two").progress == LoadProgress("weights", 1, 2))
    await pool.close()
    assert set(engine_processes()) == before

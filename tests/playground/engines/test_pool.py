"""The pool over real checkpoints and real engines, here in the test's process: progress, answers, states, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tiny import write_tiny_model

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.checkpoints.loader import load_engine
from playground.engines.pool import EnginePool
from playground.errors import CheckpointError, EngineClosedError, PlacementError, PromptError, UnknownModelError
from playground.placement.plan import Device, Placement, PlanOptions
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

CPU = Device("cpu", "cpu", 16 * 10**9, 16 * 10**9)
BUILDING = threading.Lock()
"""transformers changes what is the whole process's while it builds a model."""


def start_here(
    spec: ModelSpec, placement: Placement, report: Callable[[LoadProgress], None], cancelled: threading.Event
) -> Engine:
    with BUILDING:
        return load_engine(spec, placement, report)


def ask(model_id: str, max_new_tokens: int = 5) -> GenerationRequest:
    sampling = SamplingParams(temperature=0, max_new_tokens=max_new_tokens)
    return GenerationRequest(model_id=model_id, messages=(Message(role="user", content="hi"),), sampling=sampling)


async def collect(pool: EnginePool, request: GenerationRequest) -> list[StreamEvent]:
    return [event async for event in pool.stream(request)]


def text(events: list[StreamEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, GenerationChunk))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.load(*(write_tiny_model(tmp_path, name, seed=seed) for seed, name in enumerate(("one", "two"))))


@pytest.fixture
async def pool(registry: Registry) -> AsyncIterator[EnginePool]:
    made = EnginePool(registry, [CPU], start=start_here)
    yield made
    await made.close()


def folder_of(pool: EnginePool, model_id: str) -> Path:
    folder = pool.registry.get(model_id).weights.path
    assert folder is not None
    return folder


async def test_progress_first_then_the_answer(pool: EnginePool) -> None:
    events = await collect(pool, ask("one"))
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[LoadProgress, GenerationChunk].index)
    assert kinds[0] is LoadProgress
    assert isinstance(events[-1], GenerationChunk)
    assert events[-1].finish_reason == "length"


async def test_a_loaded_model_answers_without_progress(pool: EnginePool) -> None:
    first = await collect(pool, ask("one"))
    second = await collect(pool, ask("one"))
    assert not any(isinstance(event, LoadProgress) for event in second)
    assert text(second) == text(first)


async def test_two_models_answer_each_in_their_own_way(pool: EnginePool) -> None:
    one, two = await asyncio.gather(collect(pool, ask("one", 20)), collect(pool, ask("two", 20)))
    assert text(one) != text(two)


async def test_a_model_loaded_again_answers_as_before(pool: EnginePool) -> None:
    first = await collect(pool, ask("one", 20))
    await pool.unload("one")
    assert pool.status("one").state == "local"
    assert text(await collect(pool, ask("one", 20))) == text(first)


async def test_where_there_is_room_for_one_the_other_leaves(registry: Registry) -> None:
    size = plan([registry.get("one")], [CPU]).of("one").total_bytes
    whole = PlanOptions(quantisation="none", contexts=1)
    pool = EnginePool(registry, [Device("cpu", "cpu", 10 * size, int(1.2 * size))], whole, start_here)
    answers = [text(await collect(pool, ask(model_id, 20))) for model_id in ("one", "two", "one")]
    assert answers[0] == answers[2] != answers[1]
    assert [pool.status(model_id).state for model_id in ("one", "two")] == ["ready", "local"]
    await pool.close()


async def test_a_damaged_checkpoint_is_told_and_mended_without_a_restart(pool: EnginePool) -> None:
    weights = folder_of(pool, "one") / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    told = await asyncio.gather(*(collect(pool, ask("one")) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in told] == [CheckpointError, CheckpointError]
    status = pool.status("one")
    assert (status.state, status.detail) == ("failed", str(told[0]))
    weights.write_bytes(content)
    assert (await collect(pool, ask("one")))[-1].finish_reason == "length"  # type: ignore[union-attr]


async def test_the_encoder_needs_no_weights(pool: EnginePool) -> None:
    (folder_of(pool, "one") / "model.safetensors").unlink()
    encoder = await pool.encoder("one")
    assert encoder.encode([Message(role="user", content="안녕")]).text == "u:안녕 "
    assert await pool.encoder("one") is encoder


async def test_a_prompt_error_comes_through(pool: EnginePool) -> None:
    with pytest.raises(PromptError, match="no message"):
        await collect(pool, GenerationRequest(model_id="one", messages=()))


async def test_an_unknown_model_names_near_misses(pool: EnginePool) -> None:
    with pytest.raises(UnknownModelError, match="Did you mean one"):
        await collect(pool, ask("onee"))


async def test_what_fits_nowhere_is_refused_and_says_so_in_the_menu(pool: EnginePool) -> None:
    with pytest.raises(PlacementError, match="KULLM3"):
        await collect(pool, ask("kullm3"))
    status = pool.status("kullm3")
    assert status.state == "too_large"
    assert status.detail.startswith("needs ")


async def test_the_states_of_the_menu(pool: EnginePool) -> None:
    assert (pool.status("one").state, pool.status("one").place) == ("local", "")
    assert (pool.status("smollm2").state, pool.status("smollm2").detail) == ("download", "downloads 0.3 GB")
    await collect(pool, ask("one"))
    status = pool.status("one")
    assert (status.state, status.detail, status.progress) == ("ready", "ready", None)
    assert "Tiny one" in status.place


async def test_the_memory_of_an_engine_that_runs(pool: EnginePool) -> None:
    assert pool.memory()[0].engines == ()
    await collect(pool, ask("one"))
    (report,) = pool.memory()
    ((label, use),) = report.engines
    assert label == EngineLabel("one")
    assert use.weight_bytes >= 4 * pool.registry.get("one").parameters
    assert use.kv_bytes > 0
    assert 0 < report.free_bytes < report.total_bytes


async def test_abort_ends_an_answer_and_ignores_strangers(pool: EnginePool) -> None:
    await collect(pool, ask("one"))
    request = ask("one", 120)
    events: list[StreamEvent] = []
    async for event in pool.stream(request):
        if not events:
            await pool.abort("a stranger")
            await pool.abort(request.request_id)
        events.append(event)
    assert events[-1].finish_reason == "abort"  # type: ignore[union-attr]


async def test_after_close_nothing_is_begun_and_no_thread_is_left(registry: Registry) -> None:
    before = set(threading.enumerate())
    pool = EnginePool(registry, [CPU], start=start_here)
    await collect(pool, ask("one"))
    await pool.encoder("one")
    await pool.close()
    with pytest.raises(EngineClosedError, match="shutting down"):
        await collect(pool, ask("one"))
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("asyncio"):
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive(), thread.name

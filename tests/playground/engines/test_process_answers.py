"""An engine in a process of its own answers as one that is here would, and lets go when nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest
from process_room import answer, ask, chunks_of, load_scripted, on_the_cpu, process_of, started, tiny_spec, until

from model_registry.spec import ModelSpec
from playground.engines.checkpoints.loader import load_engine
from playground.engines.process import ProcessEngine
from playground.errors import EngineClosedError, EngineError

LONG = {"context": 8192}
"""An answer of this length takes the tiny model longer than any of these tests."""


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return tiny_spec(tmp_path)


@pytest.fixture
async def engine(spec: ModelSpec) -> AsyncIterator[ProcessEngine]:
    async with started(spec) as made:
        yield made


@pytest.fixture
async def talkative(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    spec = tiny_spec(tmp_path, "talkative", **LONG)
    async with started(spec, placement=on_the_cpu(spec, kv_tokens=8192)) as made:
        yield made


async def test_it_says_what_an_engine_in_this_process_says(engine: ProcessEngine, spec: ModelSpec) -> None:
    requests = [ask(question, temperature=1, seed=seed) for seed, question in enumerate(("hi", "안녕", "नमस्ते"))]
    here = load_engine(spec, on_the_cpu(spec), lambda _: None)
    try:
        expected = [await chunks_of(here, request) for request in requests]
    finally:
        await here.close()
    for request, chunks in zip(requests, expected, strict=True):
        told = await chunks_of(engine, request)
        assert "".join(c.delta for c in told) == "".join(c.delta for c in chunks)
        assert (told[-1].finish_reason, told[-1].usage) == (chunks[-1].finish_reason, chunks[-1].usage)
        assert told[-1].timings is not None


async def test_two_engines_answer_at_once_each_in_its_own_way(engine: ProcessEngine, tmp_path: Path) -> None:
    async with started(tiny_spec(tmp_path, "two", seed=1)) as other:
        alone = [await answer(one, ask(max_new_tokens=40)) for one in (engine, other)]
        assert alone[0] != alone[1]
        together = await asyncio.gather(*(answer(one, ask(max_new_tokens=40)) for one in (engine, other)))
        assert together == alone
        assert process_of(engine).pid != process_of(other).pid


async def test_many_streams_at_once(engine: ProcessEngine) -> None:
    requests = [ask(f"number {n}", temperature=1, seed=n) for n in range(8)]
    alone = [await answer(engine, request) for request in requests]
    again = [request.model_copy(update={"request_id": f"again {n}"}) for n, request in enumerate(requests)]
    assert await asyncio.gather(*(answer(engine, request) for request in again)) == alone


async def test_streams_on_several_event_loops(engine: ProcessEngine) -> None:
    expected = await answer(engine, ask())
    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(lambda: asyncio.run(answer(engine, ask()))) for _ in range(3)]
        assert {future.result() for future in asking} == {expected}


async def test_abort_ends_one_stream_with_what_was_said(talkative: ProcessEngine) -> None:
    async with aclosing(talkative.stream(ask(request_id="this", max_new_tokens=8000))) as stream:
        other = asyncio.create_task(answer(talkative, ask("other")))
        said = [await anext(stream)]
        await talkative.abort("this")
        said += [chunk async for chunk in stream]
    assert said[-1].finish_reason == "abort"
    assert all(chunk.finish_reason is None for chunk in said[:-1])
    assert await other == await answer(talkative, ask("other"))


async def test_an_abort_right_behind_the_question_is_not_lost(talkative: ProcessEngine) -> None:
    for number in range(20):
        asked = asyncio.create_task(chunks_of(talkative, ask(request_id=f"{number}", max_new_tokens=8000)))
        await asyncio.sleep(0)
        await talkative.abort(f"{number}")
        assert (await asked)[-1].finish_reason == "abort"


async def test_aborting_what_is_not_known_does_nothing(engine: ProcessEngine) -> None:
    await engine.abort("never heard of")
    assert await answer(engine, ask())


@pytest.mark.parametrize("way", ["closed", "cancelled"])
async def test_a_stream_that_nobody_reads_frees_its_place(talkative: ProcessEngine, way: str) -> None:
    if way == "closed":
        stream = talkative.stream(ask(max_new_tokens=8000))
        await anext(stream)
        await until(lambda: kv_used(talkative) > 0)
        await stream.aclose()
    else:
        task = asyncio.create_task(chunks_of(talkative, ask(max_new_tokens=8000)))
        await until(lambda: kv_used(talkative) > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: kv_used(talkative) == 0)
    assert not talkative._answers._open


def kv_used(engine: ProcessEngine) -> int:
    return sum(use.kv_used_bytes for use in engine.memory())


async def test_the_same_id_twice_at_once_is_refused(talkative: ProcessEngine) -> None:
    async with aclosing(talkative.stream(ask(request_id="same", max_new_tokens=8000))) as stream:
        await anext(stream)
        with pytest.raises(EngineError, match="same"):
            await answer(talkative, ask(request_id="same"))
        assert await anext(stream)


async def test_memory_is_told_and_counts_the_weights(engine: ProcessEngine, spec: ModelSpec) -> None:
    await until(lambda: bool(engine.memory()))
    (use,) = engine.memory()
    assert use.device == "cpu"
    assert use.weight_bytes >= 4 * spec.parameters
    assert use.kv_bytes > 0


async def test_closing_tells_those_who_are_answered_and_those_who_come_later(talkative: ProcessEngine) -> None:
    process = process_of(talkative)
    stream = talkative.stream(ask(max_new_tokens=8000))
    await anext(stream)
    await talkative.close()
    with pytest.raises(EngineClosedError, match="talkative was stopped"):
        [chunk async for chunk in stream]
    with pytest.raises(EngineClosedError, match="choose the model again"):
        await answer(talkative, ask())
    assert not talkative.alive
    assert not process.is_running()
    await talkative.close()


async def test_an_engine_that_answers_nobody_closes_by_itself(tmp_path: Path) -> None:
    async with started(tiny_spec(tmp_path), load_scripted) as engine:
        pass
    assert engine._child._process.exitcode == 0

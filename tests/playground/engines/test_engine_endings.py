"""Streams that end early, by their reader or by an abort, free everything at once and keep what was said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from engine_room import (
    GREEDY,
    QUESTIONS,
    Kind,
    Room,
    answer,
    ask,
    assert_free,
    chunks_of,
    held,
    processor,
    rows_in,
    until,
)
from transformers.generation.continuous_batching.requests import RequestStatus

from playground.engines.in_process import InProcessEngine
from playground.engines.sharded import ShardedEngine
from playground.errors import EngineError
from playground.types import GenerationChunk, GenerationRequest

LONG = {"max_new_tokens": 80, **GREEDY}


Answering = asyncio.Task[list[GenerationChunk]]
Ending = Callable[[InProcessEngine, GenerationRequest, Answering], object]


async def cancel(engine: InProcessEngine, request: GenerationRequest, task: Answering) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def abort(engine: InProcessEngine, request: GenerationRequest, task: Answering) -> None:
    await engine.abort(request.request_id)
    assert (await task)[-1].finish_reason == "abort"


@pytest.mark.parametrize("end", [cancel, abort])
@pytest.mark.parametrize("stage", ["waiting", "in prefill", "in decode"])
async def test_a_request_that_is_ended_is_not_in_the_next_batch(room: Room, stage: str, end: Ending) -> None:
    engine, gate = room.engine, room.gate
    gate.shut()
    full = [asyncio.create_task(chunks_of(engine, ask(q, **LONG))) for q in QUESTIONS[: 2 if stage == "waiting" else 1]]
    await gate.step()
    request = ask("z" * 100, max_new_tokens=100, **GREEDY)
    task = asyncio.create_task(chunks_of(engine, request))
    await until(lambda: len(tickets(engine)) > len(full))
    ticket = max(tickets(engine), key=int)
    while stage_of(ticket, engine) != stage:
        await gate.step()
    state = state_of(ticket, engine)
    await end(engine, request, task)
    await gate.step()
    assert not {thing for thing in held(engine) if thing.endswith(f" {ticket}")}
    assert not is_in_the_next_step(state, engine)
    gate.open()
    for other in full:
        assert (await other)[-1].finish_reason == "length"
    await assert_free(engine)


def tickets(engine: InProcessEngine) -> list[str]:
    return list(engine._loop._live if isinstance(engine, ShardedEngine) else engine._loop._router.inboxes)


def state_of(ticket: str, engine: InProcessEngine) -> Any:
    if isinstance(engine, ShardedEngine):
        return engine._loop._live[ticket]
    scheduler = processor(engine).scheduler
    return {**scheduler.waiting_requests, **scheduler.active_requests}.get(ticket)


def stage_of(ticket: str, engine: InProcessEngine) -> str:
    state = state_of(ticket, engine)
    if isinstance(engine, ShardedEngine):
        waiting = state in engine._loop._waiting
    else:
        waiting = ticket in processor(engine).scheduler.waiting_requests
    if state is None or waiting:
        return "unknown" if state is None else "waiting"
    generated = state.generated if isinstance(engine, ShardedEngine) else state.generated_tokens
    return "in decode" if generated else "in prefill"


def is_in_the_next_step(state: Any, engine: InProcessEngine) -> bool:
    if isinstance(engine, ShardedEngine):
        return state in [*rows_in(engine._loop._entering), *rows_in(engine._loop._running)]
    assert state.status is RequestStatus.FINISHED, "with asynchronous batching it may still be in a batch that runs"
    return state.request_id in {r.state.request_id for r in processor(engine).inputs_and_outputs.requests_in_batch}


async def test_closing_a_stream_frees_its_sequence(room: Room) -> None:
    async with aclosing(room.engine.stream(ask(**LONG))) as stream:
        async for chunk in stream:
            assert chunk.finish_reason is None
            break
    await assert_free(room.engine)


async def test_leaving_a_stream_alone_ends_it_with_the_loop(kind: Kind) -> None:
    room = Room(kind)

    async def start() -> None:
        await anext(room.engine.stream(ask(**LONG)))

    await asyncio.to_thread(asyncio.run, start())
    await assert_free(room.engine)
    await room.engine.close()


async def test_an_aborted_answer_keeps_what_was_said(room: Room) -> None:
    request = ask(**LONG)
    said = []
    async for chunk in room.engine.stream(request):
        said.append(chunk)
        if len(said) == 5:
            await room.engine.abort(request.request_id)
    assert said[-1].finish_reason == "abort"
    assert said[-1].usage is not None
    assert said[-1].timings is not None
    whole = await answer(room.engine, ask(**LONG))
    assert whole.startswith("".join(chunk.delta for chunk in said))
    await room.engine.abort("nobody")
    await assert_free(room.engine)


async def test_an_answer_aborted_before_its_first_token_says_how_long_it_waited(room: Room) -> None:
    room.gate.shut()
    request = ask(**LONG)
    task = asyncio.create_task(chunks_of(room.engine, request))
    await until(lambda: room.gate.holds)
    await room.engine.abort(request.request_id)
    (chunk,) = await task
    assert (chunk.delta, chunk.finish_reason) == ("", "abort")
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens == 0
    assert chunk.timings is not None
    assert chunk.timings.queued_s > 0


async def test_an_id_is_refused_while_it_is_in_use(room: Room) -> None:
    room.gate.shut()
    task = asyncio.create_task(chunks_of(room.engine, ask("안녕", "the id", **GREEDY)))
    await until(lambda: room.gate.holds)
    with pytest.raises(EngineError, match="the id is being answered"):
        await answer(room.engine, ask("x", "the id"))
    room.gate.open()
    first = await task
    assert first[-1].finish_reason == "length"
    assert await answer(room.engine, ask("안녕", "the id", **GREEDY)) == "".join(chunk.delta for chunk in first)


async def test_an_id_may_be_used_again_right_after_it_was_ended(room: Room) -> None:
    expected = await answer(room.engine, ask("안녕", **GREEDY))
    for _ in range(3):
        async with aclosing(room.engine.stream(ask("안녕", "same", **LONG))) as stream:
            await anext(stream)
    assert await answer(room.engine, ask("안녕", "same", **GREEDY)) == expected

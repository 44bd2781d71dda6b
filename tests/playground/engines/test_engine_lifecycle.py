"""Streams that end early free everything at once; engines do not block loops, other engines or the end of a process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
import torch
from engine_room import (
    GREEDY,
    KINDS,
    QUESTIONS,
    Gate,
    Kind,
    active,
    answer,
    ask,
    assert_free,
    chunks_of,
    generated,
    held,
    make_engine,
    processor,
    rows_in,
    thread_of,
    tiny_llama,
    until,
)
from transformers.generation.continuous_batching.requests import RequestStatus

from playground.engines.in_process import InProcessEngine
from playground.engines.sharded import ShardedEngine
from playground.errors import EngineClosedError, EngineError
from playground.types import GenerationChunk, GenerationRequest

LONG = {"max_new_tokens": 80, **GREEDY}


class Room:
    """An engine and the gate before its model."""

    def __init__(self, kind: Kind = "batched", **options: int) -> None:
        model = tiny_llama()
        self.gate = Gate(model)
        self.engine = make_engine(model, kind=kind, **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def room(kind: Kind) -> AsyncIterator[Room]:
    room = Room(kind, max_batch_tokens=32, max_concurrent=2, max_waiting=62)
    yield room
    room.gate.open()
    await room.engine.close()


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


async def test_a_waiting_stream_leaves_the_loop_free(room: Room) -> None:
    """Were the loop blocked, nothing would open the gate."""
    room.gate.shut()
    task = asyncio.create_task(answer(room.engine, ask(**GREEDY)))
    await until(lambda: room.gate.holds)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    room.gate.open()
    assert await task


async def test_tokens_that_came_while_nobody_looked_are_one_chunk(room: Room) -> None:
    stream = room.engine.stream(ask(max_new_tokens=60, **GREEDY))
    first = await anext(stream)
    threading.Event().wait(0.01)
    while active(room.engine):  # in the loop's own thread: nothing is delivered
        threading.Event().wait(0.01)
    rest = [chunk async for chunk in stream]
    assert len(rest) == 1
    assert (rest[0].finish_reason, rest[0].usage.completion_tokens) == ("length", 60)
    assert first.delta + rest[0].delta == await answer(room.engine, ask(max_new_tokens=60, **GREEDY))
    assert rest[0].timings.decode_s > 0


async def test_streams_on_other_loops_at_the_same_time(room: Room) -> None:
    requests = [ask(question, temperature=1.0, seed=n) for n, question in enumerate(QUESTIONS)]
    alone = [await answer(room.engine, request) for request in requests]
    threads = [asyncio.to_thread(asyncio.run, answer(room.engine, request)) for request in requests]
    assert await asyncio.gather(*threads) == alone


async def test_a_loop_that_is_closed_in_the_middle_takes_no_one_along(room: Room) -> None:
    """Its stream cannot even be told any more."""
    room.gate.shut()
    loop = asyncio.new_event_loop()
    first = loop.create_task(chunks_of(room.engine, ask(**LONG)))
    first._log_destroy_pending = False  # type: ignore[attr-defined]
    await asyncio.to_thread(loop.run_until_complete, until(lambda: room.gate.holds))
    loop.close()
    task = asyncio.create_task(answer(room.engine, ask("x", **GREEDY)))
    await room.gate.step()
    room.gate.open()
    assert await task == generated(tiny_llama(), "x", max_new_tokens=24)
    assert not first.done()


async def test_two_engines_never_wait_for_each_other(kind: Kind) -> None:
    blocked, free = Room(kind), Room()
    blocked.gate.shut()
    stuck = asyncio.create_task(answer(blocked.engine, ask(**GREEDY)))
    await until(lambda: blocked.gate.holds)
    answers = await asyncio.gather(*(answer(free.engine, ask(question, **GREEDY)) for question in QUESTIONS))
    assert all(answers)
    assert not stuck.done()
    await free.engine.close()
    blocked.gate.open()
    assert await stuck == generated(tiny_llama(), "안녕", max_new_tokens=24)
    await blocked.engine.close()


async def test_close_in_the_middle_of_answers(kind: Kind) -> None:
    room = Room(kind)
    tasks = [asyncio.create_task(chunks_of(room.engine, ask(question, **LONG))) for question in QUESTIONS]
    await until(lambda: active(room.engine) == len(QUESTIONS))
    thread = thread_of(room.engine)
    await asyncio.gather(room.engine.close(), room.engine.close())
    assert not thread.is_alive()
    for task in tasks:
        with pytest.raises(EngineClosedError, match="was stopped while it answered"):
            await task
    with pytest.raises(EngineClosedError, match="was stopped"):
        await answer(room.engine, ask())
    await room.engine.close()


async def test_close_does_not_wait_for_a_model_that_hangs(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    room = Room(kind)
    room.gate.shut()
    task = asyncio.create_task(answer(room.engine, ask()))
    await until(lambda: room.gate.holds)
    thread = thread_of(room.engine)
    async with asyncio.timeout(10):
        await room.engine.close()
    with pytest.raises(EngineClosedError):
        await task
    assert thread.is_alive()
    room.gate.open()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_normal_use_logs_no_warning(kind: Kind) -> None:
    seen: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = seen.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("", "transformers", "ContinuousBatchingLogger")]
    for logger in loggers:
        logger.addHandler(handler)
    room = Room(kind)
    await asyncio.gather(*(answer(room.engine, ask(q, seed=n)) for n, q in enumerate(QUESTIONS)))
    async with aclosing(room.engine.stream(ask(**LONG))) as stream:
        await anext(stream)
    await room.engine.close()
    for logger in loggers:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in seen] == []


async def test_an_engine_leaves_the_model_as_it_was(kind: Kind) -> None:
    model = tiny_llama()
    before = generated(model, "x", max_new_tokens=10)
    engine = make_engine(model, kind=kind)
    await answer(engine, ask())
    await engine.close()
    assert generated(model, "x", max_new_tokens=10) == before
    assert torch.is_grad_enabled()

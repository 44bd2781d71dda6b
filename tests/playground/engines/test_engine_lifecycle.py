"""Engines do not block loops, other engines or the end of a process, and leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import aclosing

import pytest
import torch
from engine_room import (
    GREEDY,
    PATIENCE_S,
    QUESTIONS,
    Kind,
    Room,
    active,
    answer,
    ask,
    chunks_of,
    generated,
    make_engine,
    thread_of,
    tiny_llama,
    until,
)

from playground.errors import EngineClosedError

LONG = {"max_new_tokens": 80, **GREEDY}


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
    async with asyncio.timeout(PATIENCE_S):
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

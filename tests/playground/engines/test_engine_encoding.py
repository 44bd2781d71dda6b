"""While a prompt is encoded, which may take seconds, the loop is free and the request can be ended or refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from engine_room import (
    GREEDY,
    Kind,
    answer,
    ask,
    assert_free,
    chunks_of,
    generated,
    held,
    make_engine,
    tiny_llama,
    until,
)

from playground.engines.in_process import InProcessEngine
from playground.errors import EngineBusyError, EngineClosedError, EngineError
from playground.prompting.prompt import EncodedPrompt

LONG = {"max_new_tokens": 80, **GREEDY}


@pytest.fixture
async def engine(kind: Kind) -> AsyncIterator[InProcessEngine]:
    engine = make_engine(kind=kind)
    yield engine
    await engine.close()


class SlowEncoder:
    """Stands before the engine's prompt encoder, and holds every prompt until it is opened."""

    def __init__(self, engine: InProcessEngine) -> None:
        self._encode = engine._encoder.encode
        self._open = threading.Event()
        self.holds = 0
        engine._encoder.encode = self.encode  # type: ignore[method-assign]

    def encode(self, *asked: Any) -> EncodedPrompt:
        self.holds += 1
        assert self._open.wait(10), "the event loop had no time to open the encoder"
        return self._encode(*asked)

    def open(self) -> None:
        self._open.set()


async def test_a_long_prompt_leaves_the_loop_and_other_answers_free(engine: InProcessEngine) -> None:
    other = engine.stream(ask(**LONG))
    await anext(other)
    slow = SlowEncoder(engine)
    task = asyncio.create_task(answer(engine, ask("x", **GREEDY)))
    await until(lambda: slow.holds == 1)
    assert [chunk async for chunk in other][-1].finish_reason == "length"
    slow.open()
    assert await task == generated(tiny_llama(), "x", max_new_tokens=24)


async def test_cancelling_a_request_while_its_prompt_is_encoded_does_not_wait_for_that(engine: InProcessEngine) -> None:
    slow = SlowEncoder(engine)
    request = ask(**LONG)
    task = asyncio.create_task(chunks_of(engine, request))
    await until(lambda: slow.holds == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not held(engine)
    slow.open()
    await assert_free(engine)
    assert await chunks_of(engine, request)


async def test_aborting_a_request_while_its_prompt_is_encoded(engine: InProcessEngine) -> None:
    slow = SlowEncoder(engine)
    request = ask(**LONG)
    task = asyncio.create_task(chunks_of(engine, request))
    await until(lambda: slow.holds == 1)
    await engine.abort(request.request_id)
    slow.open()
    (chunk,) = await task
    assert (chunk.delta, chunk.finish_reason) == ("", "abort")
    await assert_free(engine)


async def test_an_id_is_in_use_and_a_place_taken_while_the_prompt_is_encoded(kind: Kind) -> None:
    engine = make_engine(kind=kind, max_concurrent=1, max_waiting=0)
    slow = SlowEncoder(engine)
    task = asyncio.create_task(answer(engine, ask("x", "the id", **GREEDY)))
    await until(lambda: slow.holds == 1)
    with pytest.raises(EngineError, match="the id is being answered"):
        await answer(engine, ask("x", "the id"))
    with pytest.raises(EngineBusyError):
        await answer(engine, ask("x"))
    assert slow.holds == 1, "a refused request need not be encoded"
    slow.open()
    assert await task
    await engine.close()


async def test_close_while_a_prompt_is_encoded(kind: Kind) -> None:
    engine = make_engine(kind=kind)
    slow = SlowEncoder(engine)
    task = asyncio.create_task(answer(engine, ask()))
    await until(lambda: slow.holds == 1)
    await engine.close()
    slow.open()
    with pytest.raises(EngineClosedError, match="was stopped"):
        await task

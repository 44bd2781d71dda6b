"""The clock between engine and screen: batches, heartbeats, commands, and letting go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from playground.errors import EngineError
from playground.types import GenerationChunk, StreamEvent
from playground.ui import pace
from playground.ui.pace import StreamControl, paced


class Source:
    """A stream that says what it is told, and remembers whether it was let go."""

    def __init__(self, *events: StreamEvent | Exception, pause_s: float = 0.0, hangs: bool = False) -> None:
        self.events, self.pause_s, self.hangs, self.released = events, pause_s, hangs, False

    async def stream(self) -> AsyncGenerator[StreamEvent, None]:
        try:
            for event in self.events:
                await asyncio.sleep(self.pause_s)
                if isinstance(event, Exception):
                    raise event
                yield event
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.released = True


def chunks(count: int) -> list[GenerationChunk]:
    return [GenerationChunk(str(number)) for number in range(count)]


async def test_the_first_comes_at_once_and_the_rest_in_batches() -> None:
    source = Source(*chunks(200), pause_s=0.001)
    async with aclosing(paced(source.stream(), asyncio.Queue(), 0.05)) as batches:
        got = [batch async for batch in batches]
    assert [event for batch in got for event in batch] == chunks(200)
    assert len(got[0]) < 20, "it waited for the clock, in whose time some fifty come"
    assert len(got) < 30
    assert source.released


async def test_nothing_comes_out_as_empty_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "HEARTBEAT_S", 0.01)
    source = Source(hangs=True)
    async with aclosing(paced(source.stream(), asyncio.Queue(), 0.05)) as batches:
        assert [await anext(batches) for _ in range(3)] == [[], [], []]
        assert not source.released
    assert source.released


async def test_a_command_cuts_into_a_stream_that_says_nothing() -> None:
    control = StreamControl()
    control.open()
    inbox = control.claim()
    assert inbox is not None
    source = Source(hangs=True)
    async with aclosing(paced(source.stream(), inbox, 0.05)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        assert control.say("stop")
        assert await asyncio.wait_for(waiting, 0.4) == ["stop"]
    assert source.released


async def test_an_error_comes_after_what_was_said_before() -> None:
    source = Source(*chunks(2), EngineError("Gone."))
    got: list[object] = []

    async def read() -> None:
        async with aclosing(paced(source.stream(), asyncio.Queue(), 0.01)) as batches:
            async for batch in batches:
                got.extend(batch)

    with pytest.raises(EngineError, match="Gone"):
        await read()
    assert got == chunks(2)


async def test_cancelling_the_reader_lets_the_stream_go() -> None:
    source = Source(*chunks(1), hangs=True)

    async def read() -> None:
        async with aclosing(paced(source.stream(), asyncio.Queue(), 0.01)) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.released


async def test_a_stream_is_claimed_once() -> None:
    control = StreamControl()
    assert control.claim() is None
    assert not control.say("stop")
    control.open()
    assert control.is_open
    assert control.claim() is not None
    assert control.claim() is None
    control.close()
    assert not control.is_open
    control.open()
    assert control.claim() is not None

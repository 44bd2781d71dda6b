"""Visitors, requests and a clock that a test turns on, for tests of whoever stands before the engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from playground.admission.gate import Gate
from playground.admission.visitor import Visitor
from playground.types import GenerationChunk, GenerationRequest, Message, StreamEvent, Waiting

PATIENCE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds


def visitor(number: int = 0) -> Visitor:
    """Different numbers have nothing in common."""
    return Visitor(f"session-{number}", f"10.0.{number // 256}.{number % 256}")


def turn(panels: int = 1) -> list[GenerationRequest]:
    """The requests of one turn."""
    first = request()
    return [first, *(request(first.turn_id) for _ in range(panels - 1))]


def request(turn_id: str = "") -> GenerationRequest:
    question = (Message(role="user", content="Hello"),)
    return GenerationRequest(model_id="a", messages=question, **({"turn_id": turn_id} if turn_id else {}))


class Engines:
    """Answers each request with one word, and ends when it is told to; `begun` and `ended` keep request ids."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def stream(self, asked: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        self.begun.append(asked.request_id)
        try:
            yield GenerationChunk("word")
            await self._end_of(asked).wait()
            yield GenerationChunk("", "stop")
        finally:
            self.ended.append(asked.request_id)

    def end(self, asked: GenerationRequest) -> None:
        self._end_of(asked).set()

    def _end_of(self, asked: GenerationRequest) -> asyncio.Event:
        return self._ends.setdefault(asked.request_id, asyncio.Event())


class Asker:
    """Follows one stream through a gate; `events` is what came."""

    def __init__(self, gate: Gate, who: Visitor, asked: GenerationRequest, engines: Engines) -> None:
        self.asked = asked
        self.events: list[StreamEvent] = []
        self._came = asyncio.Event()
        self._run = asyncio.create_task(self._follow(gate.stream(who, asked, engines.stream)))

    async def _follow(self, events: AsyncGenerator[StreamEvent, None]) -> None:
        try:
            async for event in events:
                self.events.append(event)
                self._came.set()
        finally:
            self._came.set()

    @property
    def told(self) -> list[Waiting]:
        return [event for event in self.events if isinstance(event, Waiting)]

    @property
    def positions(self) -> list[int]:
        """The positions that it was told, each once."""
        return list(dict.fromkeys(each.position for each in self.told))

    async def hears(self, *kinds: type) -> None:
        """Returns when the last event is one of these."""
        async with asyncio.timeout(PATIENCE_S):
            while not (self.events and isinstance(self.events[-1], kinds)):
                await self._next()

    async def hears_position(self, position: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while position not in self.positions:
                await self._next()

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._run

    async def go_away(self) -> None:
        self._run.cancel()
        await asyncio.wait([self._run])

    async def _next(self) -> None:
        if self._run.done():
            self._run.result()
            raise AssertionError("the stream ended")
        self._came.clear()
        await self._came.wait()


def admitted(gate: Gate, number: int, engines: Engines, panels: int = 1) -> Sequence[Asker]:
    """A visitor's turn, taken and followed."""
    requests = turn(panels)
    gate.admit(visitor(number), requests)
    return [Asker(gate, visitor(number), asked, engines) for asked in requests]

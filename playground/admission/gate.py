"""The one gate that every prompt goes through: refuses what is too much, lets the others wait for their place.

What is counted is the turn: all panels, asked at once. It is announced first, which counts for its visitor, and lines
up when its first stream comes: that is the order of the line. Its verbs may be used from any thread and event loop.
Knows neither engines nor gradio; asked by the page and the API.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace

from playground.admission.frequency import Frequency
from playground.admission.line import Line
from playground.admission.visitor import Visitor
from playground.errors import EngineBusyError
from playground.limits import OPEN, Limits
from playground.types import GenerationChunk, GenerationRequest, StreamEvent, Waiting

ANNOUNCED_S = 5.0
"""Seconds that streams may take to come: a browser that went away between prompt and answer sends none."""

TELL_S = 1.0
"""Seconds between two words to whoever waits; their place itself they get at once."""

Events = Callable[[GenerationRequest], AsyncGenerator[StreamEvent, None]]


@dataclass
class _Turn:
    """`to_come`: streams that were announced and are not there yet; `running`: those that are. `placed`: done once it
    has its place, None until it lines up. `is_answered`: in one panel at least, to the end."""

    session: str
    origin: Hashable
    to_come: int
    running: int = 0
    placed: Future[None] | None = None
    is_answered: bool = False

    @property
    def is_over(self) -> bool:
        return not self.to_come and not self.running


class Gate:
    """`limits` of lengths are not its business, but those of numbers and times. Of several places no address may have
    more than half."""

    def __init__(self, limits: Limits = OPEN, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits = _shared(limits)
        self._clock = clock
        self._line = Line(limits.places, clock)
        self._asked = Frequency(limits.asks_per_minute, clock)
        self._turns: dict[str, _Turn] = {}
        self._announced: dict[str, float] = {}
        self._lock = threading.Lock()
        """Held to look at any of the four."""
        at_all = (limits.places, limits.running_per_session, limits.running_per_address, limits.asks_per_minute)
        self._is_open = all(limit is None for limit in at_all)

    @property
    def taken(self) -> int:
        """Places that are taken now."""
        return self._line.taken

    @property
    def waiting(self) -> int:
        """Turns that wait now."""
        return self._line.length

    def refusal(self, visitor: Visitor) -> str:
        """Why this visitor may not ask now, and what to do; "" if they may."""
        if self._is_open:
            return ""
        with self._lock:
            return self._refusal(visitor)

    def require(self, visitor: Visitor) -> None:
        """Raises EngineBusyError: what `refusal` says."""
        if sentence := self.refusal(visitor):
            raise EngineBusyError(sentence)

    def admit(self, visitor: Visitor, requests: Sequence[GenerationRequest]) -> None:
        """Announce a turn: these requests, all of one turn, will be streamed now. None are no turn.

        It takes no place, and none in line, before the first of them comes; but there will be room for it.

        Raises:
            EngineBusyError: what `refusal` says.
        """
        if self._is_open or not requests:
            return
        with self._lock:
            if sentence := self._refusal(visitor):
                raise EngineBusyError(sentence)
            self._asked.count(visitor.origin)
            self._announce(visitor, requests[0].turn_id, len(requests))

    def count(self, visitor: Visitor) -> None:
        """Something that costs an engine work, but takes no place: it counts among the prompts of a minute.

        Raises:
            EngineBusyError: they ask too fast.
        """
        if self._is_open:
            return
        with self._lock:
            if sentence := self._too_fast(visitor.origin):
                raise EngineBusyError(sentence)
            self._asked.count(visitor.origin)

    def stream(self, visitor: Visitor, request: GenerationRequest, events: Events) -> AsyncGenerator[StreamEvent, None]:
        """`events` of the request once its turn has a place; before that, Waiting at once and every second.

        The turn keeps its place until the last of its streams has ended. Closing this gives it up, in the line too.

        Raises:
            EngineBusyError: the turn was not admitted, or has ended without this stream, and may not come now.
        """
        return events(request) if self._is_open else self._stream(visitor, request, events)

    async def _stream(
        self, visitor: Visitor, request: GenerationRequest, events: Events
    ) -> AsyncGenerator[StreamEvent, None]:
        turn, placed = self._join(visitor, request.turn_id)
        try:
            async with aclosing(self._line_up(request.turn_id, placed)) as waiting:
                async for told in waiting:
                    yield told
            async with aclosing(events(request)) as answer:
                async for event in answer:
                    turn.is_answered |= isinstance(event, GenerationChunk) and event.finish_reason is not None
                    yield event
        finally:
            self._part(request.turn_id, turn)

    async def _line_up(self, turn_id: str, future: Future[None]) -> AsyncGenerator[Waiting, None]:
        if future.done():
            return
        placed = asyncio.wrap_future(future)
        try:
            while waiting := self._tell(turn_id):
                yield waiting
                await asyncio.wait([placed], timeout=TELL_S)
            yield Waiting(0, 0.0)
        finally:
            placed.cancel()

    def _refusal(self, visitor: Visitor) -> str:
        self._let_go()
        return self._too_fast(visitor.origin) or self._too_many(visitor)

    def _too_many(self, visitor: Visitor) -> str:
        limits, origin = self.limits, visitor.origin
        if visitor.session and self._is_reached(
            limits.running_per_session, lambda turn: turn.session == visitor.session
        ):
            running = _running(limits.running_per_session)
            return f"{running} in this page already: wait until one has ended, or press Stop."
        if self._is_reached(limits.running_per_address, lambda turn: turn.origin == origin):
            return f"{_running(limits.running_per_address)} for your address already: wait until one has ended."
        return self._line_is_full() if self._is_full() else ""

    def _line_is_full(self) -> str:
        wait = "waits" if self.limits.waiting == 1 else "wait"
        return f"{_prompts(self.limits.waiting)} {wait} in line already: try again in a minute."

    def _too_fast(self, origin: Hashable) -> str:
        wait_s = self._asked.wait_s(origin)
        most = _prompts(self.limits.asks_per_minute)
        return f"You are asking faster than {most} a minute: wait {math.ceil(wait_s)} s." if wait_s else ""

    def _is_reached(self, limit: int | None, counts: Callable[[_Turn], bool]) -> bool:
        return limit is not None and sum(map(counts, self._turns.values())) >= limit

    def _is_full(self) -> bool:
        """Those that are announced will have a place, or one in line."""
        places, waiting = self.limits.places, self.limits.waiting
        return places is not None and waiting is not None and len(self._turns) >= places + waiting

    def _announce(self, visitor: Visitor, turn_id: str, streams: int) -> _Turn:
        turn = self._turns[turn_id] = _Turn(visitor.session, visitor.origin, streams)
        self._announced[turn_id] = self._clock() + ANNOUNCED_S
        return turn

    def _join(self, visitor: Visitor, turn_id: str) -> tuple[_Turn, Future[None]]:
        """A stream of the turn begins. One that comes after all else of its turn has ended is a turn of its own, and
        must be allowed anew, but for the minute, in which it was counted."""
        with self._lock:
            self._let_go()
            turn = self._turns.get(turn_id)
            if turn is None:
                if sentence := self._too_many(visitor):
                    raise EngineBusyError(sentence)
                turn = self._announce(visitor, turn_id, 1)
            turn.to_come = max(0, turn.to_come - 1)
            turn.running += 1
            if turn.placed is None:
                turn.placed = self._line.enter(turn_id)
            return turn, turn.placed

    def _tell(self, turn_id: str) -> Waiting | None:
        with self._lock:
            self._let_go()
            position = self._line.position(turn_id)
            return Waiting(position, self._line.estimate_s(position)) if position else None

    def _part(self, turn_id: str, turn: _Turn) -> None:
        with self._lock:
            turn.running -= 1
            self._end(turn_id, turn)

    def _let_go(self) -> None:
        """Turns whose streams should have come by now wait for them no longer. They stand in the order of that time."""
        now = self._clock()
        while self._announced and next(iter(self._announced.values())) <= now:
            turn_id = next(iter(self._announced))
            del self._announced[turn_id]
            turn = self._turns[turn_id]
            turn.to_come = 0
            self._end(turn_id, turn)

    def _end(self, turn_id: str, turn: _Turn) -> None:
        if turn.is_over:
            self._turns.pop(turn_id)
            self._announced.pop(turn_id, None)
            self._line.leave(turn_id, turn.is_answered)


def _shared(limits: Limits) -> Limits:
    if limits.places is None or limits.running_per_address is None:
        return limits
    return replace(limits, running_per_address=min(limits.running_per_address, max(1, limits.places // 2)))


def _prompts(number: int | None) -> str:
    return "1 prompt" if number == 1 else f"{number} prompts"


def _running(number: int | None) -> str:
    return f"{_prompts(number)} {'is' if number == 1 else 'are'} answered or waiting"

"""Many visitors at once, over plain HTTP: some stay, some press Stop, some are gone in the middle.

Used by the test of a small crowd and by the benchmark of a large one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from raw_page import SPOKEN, PageMap, PanelSeen, RawSession

Manner = Literal["stays", "stops", "leaves while answered", "leaves in line"]

PATIENCE_S = 300.0

LATE_S = 3.0
"""Seconds from Send after which a visitor without an answer should know the place in line."""


@dataclass
class Visit:
    """One visitor's prompt, and what came of it. `ended` is how it really ended: who finds no line cannot leave it."""

    prompt: str
    manner: Manner
    seen: list[PanelSeen] = field(default_factory=lambda: [PanelSeen(), PanelSeen()])
    ended: Manner = "stays"
    hint: str = ""
    left_s: float = math.inf

    @property
    def was_told(self) -> bool:
        """Whether it was told a place in line."""
        return any(panel.positions for panel in self.seen)

    @property
    def silence_s(self) -> float:
        """The longest that a panel said nothing new, from Send to its end or to when the visitor left; infinite where
        one that was listened to never said a word."""
        return max(max(panel.silences_s(self.left_s)) for panel in self.seen)

    @property
    def later_silence_s(self) -> float:
        """The same, after the first word."""
        return max(max(panel.silences_s(self.left_s)[1:], default=0.0) for panel in self.seen)

    @property
    def answered_s(self) -> float:
        """From Send to the first word of an answer; infinite where none came."""
        return min(map(_answer_s, self.seen))

    @property
    def waits_s(self) -> float:
        """From Send to the first word of the last panel's answer."""
        return max(map(_answer_s, self.seen))

    @property
    def was_kept_in_the_dark(self) -> bool:
        """Whether the answer was late, and no place in line was told before it."""
        return min(self.left_s, self.answered_s) > LATE_S and not self.was_told


async def come(url: str, visits: Sequence[Visit], first: int = 0, **fields: Any) -> None:
    """Each opens the page, from an address of its own, counted from `first`; then all press Send at once. Returns when
    the last has ended."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits) as http:
        page = await PageMap.read(http)
        addresses = [f"10.1.{number // 256}.{number % 256}" for number in range(first, first + len(visits))]
        sessions = [RawSession(http, page, address) for address in addresses]
        for session in sessions:
            await session.open()
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for session, visit in zip(sessions, visits, strict=True):
                group.create_task(_follow(session, visit, fields))


async def _follow(session: RawSession, visit: Visit, fields: dict[str, Any]) -> None:
    if not await session.send(visit.prompt, **fields):
        visit.hint = session.hint
        return
    async with aclosing(session.watch(visit.seen)) as steps:
        async for _ in steps:
            is_spoken = any(panel.answer for panel in visit.seen)
            if visit.manner == "leaves in line" and visit.was_told and not is_spoken:
                visit.ended, visit.left_s = "leaves in line", session.seconds
                return
            if visit.manner == "leaves while answered" and is_spoken:
                visit.ended, visit.left_s = "leaves while answered", session.seconds
                return
            if visit.manner == "stops" and is_spoken and visit.ended == "stays":
                visit.ended = "stops"
                await session.stop()


def _answer_s(panel: PanelSeen) -> float:
    spoken = (seconds for foot, seconds in zip(panel.feet, panel.seconds, strict=True) if foot.startswith(SPOKEN))
    return next(spoken, math.inf)

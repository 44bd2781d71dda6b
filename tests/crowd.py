"""Many visitors at once, over plain HTTP: some stay, some press Stop, some are gone in the middle.

Used by the test of a small crowd and by the benchmark of a large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from raw_page import PageMap, PanelSeen, RawSession

Manner = Literal["stays", "stops", "leaves while answered", "leaves in line"]

PATIENCE_S = 300.0


@dataclass
class Visit:
    """One visitor's prompt, and what came of it. `ended` is how it really ended: who finds no line cannot leave it."""

    prompt: str
    manner: Manner
    seen: list[PanelSeen] = field(default_factory=lambda: [PanelSeen(), PanelSeen()])
    ended: Manner = "stays"
    hint: str = ""

    @property
    def has_waited(self) -> bool:
        return any(panel.positions for panel in self.seen)

    @property
    def silence_s(self) -> float:
        """The longest that a panel said neither a place in line nor a word of an answer, from Send on."""
        return max(_first_word_s(panel) for panel in self.seen)

    @property
    def waits_s(self) -> float:
        """From Send to the first word of the last panel."""
        spoken = [[s for foot, s in zip(p.feet, p.seconds, strict=True) if _is_spoken(foot)] for p in self.seen]
        return max((seconds[0] for seconds in spoken if seconds), default=0.0)


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
            if visit.manner == "leaves in line" and visit.has_waited and not is_spoken:
                visit.ended = "leaves in line"
                return
            if visit.manner == "leaves while answered" and is_spoken:
                visit.ended = "leaves while answered"
                return
            if visit.manner == "stops" and is_spoken and visit.ended == "stays":
                visit.ended = "stops"
                await session.stop()


def _is_spoken(foot: str) -> bool:
    return foot.startswith(("answering", "ended", "stopped", "length"))


def _first_word_s(panel: PanelSeen) -> float:
    told = [
        seconds
        for foot, seconds in zip(panel.feet, panel.seconds, strict=True)
        if _is_spoken(foot) or foot.startswith("Waiting: ")
    ]
    return told[0] if told else 0.0

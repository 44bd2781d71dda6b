"""What Gradio keeps for pages to read, and what of it nobody comes for: a bounded number of events, for a minute.

Gradio holds back all that it has to tell a page until the page reads it, for as long as the server runs; who sends
events and never listens would fill its memory. Knows of Gradio's queue what it keeps by session; asked by `arrivals`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from playground.ui.door.held import Held

UNHEARD_S = 60.0
"""Seconds for which a page that listens to nothing is told what it asked for."""

LOOK_S = 10.0
"""Seconds between two looks at who listens."""


class Backlog:
    """`most`: events of one session that have not ended, or whose end it has not read; None is any number, for ever."""

    def __init__(self, most: int | None, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._listening = Held()
        self._alone: dict[str, float] = {}
        """Since when nobody listens for a session that something is kept for."""
        self._looked = clock()

    def refusal(self, session: str, queue: Any) -> str:
        """Why this session may send no event now, "" if it may. It is known to be there."""
        unread = len(queue.pending_event_ids_session.get(session, ()))
        if not unread:
            self._alone.pop(session, None)
        if self._most is None or unread < self._most:
            return ""
        return f"This page has not heard the end of {self._most} things that it asked for: load it again."

    def listening(self, session: str) -> AbstractContextManager[None]:
        """While a page reads what it is told."""
        return self._listening.by(session)

    async def drop(self, queue: Any) -> None:
        """Drop what is kept for sessions for which nobody has listened long enough; looks now and then."""
        now = self._clock()
        if self._most is None or now < self._looked + LOOK_S:
            return
        self._looked = now
        kept = {*queue.pending_messages_per_session, *queue.pending_event_ids_session} - {*self._listening}
        self._alone = {session: self._alone.get(session, now) for session in kept}
        for session in [each for each, since in self._alone.items() if now >= since + UNHEARD_S]:
            await queue.clean_events(session_hash=session)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
            del self._alone[session]

"""How many new pages one address may open within a minute, so that it cannot push everybody's conversation out.

Gradio keeps a place for every session that an event names, and forgets those that were used longest ago; whoever sends
events makes the names up. Knows no request; asked by `arrivals`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from playground.admission.frequency import Frequency

NEW_S = 60.0
"""Seconds in which the events of a page that opens count once; by then Gradio knows its session."""


class Newcomers:
    """`most`: new sessions of one address within a minute; None is any number."""

    def __init__(self, most: int | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._came = Frequency(most, clock)
        self._new: dict[str, float] = {}

    def wait_s(self, session: str, origin: Hashable) -> float:
        """Seconds until a session that Gradio does not know may come from there, 0 for now. "" is a new one each."""
        self._forget()
        if session in self._new:
            return 0.0
        if wait_s := self._came.wait_s(origin):
            return wait_s
        self._came.count(origin)
        if session:
            self._new[session] = self._clock() + NEW_S
        return 0.0

    def _forget(self) -> None:
        """They stand in the order of their time."""
        while self._new and next(iter(self._new.values())) <= self._clock():
            del self._new[next(iter(self._new))]

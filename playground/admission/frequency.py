"""How often somebody asked in the last minute, in bounded memory. Holds no lock: its one user, `gate`, does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

MINUTE_S = 60.0

REMEMBERED = 10_000
"""Askers that are kept in mind; of more, those are forgotten who asked longest ago."""


class Frequency:
    """`most`: how often one may ask within a minute; None is as often as they like, and nothing is kept."""

    def __init__(self, most: int | None, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._asked: dict[Hashable, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def wait_s(self, asker: Hashable) -> float:
        """Seconds until they may ask again, 0 for now."""
        if self._most is None:
            return 0.0
        times = self._asked.get(asker)
        return max(0.0, times[0] + MINUTE_S - self._clock()) if times and len(times) == self._most else 0.0

    def count(self, asker: Hashable) -> None:
        """They ask now."""
        if self._most is None:
            return
        times = self._asked.pop(asker, None) or deque(maxlen=self._most)
        times.append(self._clock())
        self._asked[asker] = times
        self._forget()

    def _forget(self) -> None:
        """The dict is in the order of everybody's last time."""
        oldest = self._clock() - MINUTE_S
        while len(self._asked) > REMEMBERED or next(iter(self._asked.values()))[-1] < oldest:
            self._asked.pop(next(iter(self._asked)))

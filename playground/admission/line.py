"""The line in front of the engines: who has one of the places, who waits, and about how long.

First come, first served, by the time of `enter`. Knows neither visitors nor requests, and holds no lock: its one user,
`gate`, does.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

WEIGHT_OF_THE_LAST = 0.2
"""How much the last turn's time counts in the mean: about the last ten matter."""

LEAST_S = 1.0
"""The shortest wait that is estimated."""


class Line:
    """Turns by their ids. `places` is how many have one at a time; None is as many as come."""

    def __init__(self, places: int | None, clock: Callable[[], float]) -> None:
        self._places = places
        self._clock = clock
        self._waiting: dict[str, Future[None]] = {}
        self._placed: dict[str, float] = {}
        self._mean_s: float | None = None

    @property
    def length(self) -> int:
        """Turns that wait."""
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """Turns that have a place."""
        return len(self._placed)

    def enter(self, turn_id: str) -> Future[None]:
        """The future is done when the turn has its place, at once where one is free; it cannot be cancelled."""
        placed: Future[None] = Future()
        placed.set_running_or_notify_cancel()
        self._waiting[turn_id] = placed
        self._give_places()
        return placed

    def leave(self, turn_id: str, is_answered: bool = True) -> None:
        """From its place or from the line; others move up.

        is_answered: to its end. How long the others had a place tells nothing of the next.
        """
        self._waiting.pop(turn_id, None)
        begun = self._placed.pop(turn_id, None)
        if begun is not None and is_answered:
            self._remember(self._clock() - begun)
        self._give_places()

    def position(self, turn_id: str) -> int:
        """1 is who comes next; 0 has a place, or has left."""
        return list(self._waiting).index(turn_id) + 1 if turn_id in self._waiting else 0

    def estimate_s(self, position: int) -> float | None:
        """Seconds, at least 1, until the turn at this position gets its place, if turns last as the recent ones did.

        None before one has ended, and where the turn whose place this will be has lasted longer than they did: then
        nothing is known of its end. The places fall free in the order in which they were taken, once a round.
        """
        if self._mean_s is None or self._places is None:
            return None
        rounds, place = divmod(position - 1, self._places)
        begun = list(self._placed.values())[place]
        left_s = begun + self._mean_s - self._clock()
        return None if left_s < 0 else max(LEAST_S, left_s + rounds * self._mean_s)

    def _give_places(self) -> None:
        while self._waiting and (self._places is None or len(self._placed) < self._places):
            turn_id = next(iter(self._waiting))
            placed = self._waiting.pop(turn_id)
            self._placed[turn_id] = self._clock()
            placed.set_result(None)

    def _remember(self, seconds: float) -> None:
        mean = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean + WEIGHT_OF_THE_LAST * (seconds - mean)

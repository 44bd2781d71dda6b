"""When the tokens of an answer came, and how fast that was; for gpu.py."""

from __future__ import annotations

import time
from typing import Any

from transformers.generation.streamers import BaseStreamer


class Pace:
    """An answer as it comes; made when the question is asked. `arrivals`: seconds since then, tokens so far."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.arrivals: list[tuple[float, int]] = []
        self.text = ""

    def add(self, text: str, tokens: int) -> None:
        self.text += text
        self.arrivals.append((time.perf_counter(), tokens))

    @property
    def first_token_s(self) -> float:
        return self.arrivals[0][0] - self.begun

    @property
    def speed(self) -> float:
        """Tokens a second after the first."""
        return self.speed_within(self.arrivals[0][0], self.arrivals[-1][0])

    def speed_within(self, start: float, end: float) -> float:
        inside = [(when, tokens) for when, tokens in self.arrivals if start <= when <= end]
        if len(inside) < 2:
            return float("nan")
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) / (last - first)


def both(paces: dict[str, Pace]) -> dict[str, float]:
    """Tokens a second of each, in the time in which all of them write."""
    start = max(pace.arrivals[0][0] for pace in paces.values())
    end = min(pace.arrivals[-1][0] for pace in paces.values())
    return {name: pace.speed_within(start, end) for name, pace in paces.items()}


class PlainStreamer(BaseStreamer):
    """Notes what `generate` makes, token by token, in the words of random_models.tokenizer."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._prompt = True
        self._tokens = 0

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
            return
        self._tokens += 1
        self.pace.add(f"{'' if self._tokens == 1 else ' '}w{int(value.reshape(-1)[0])}", self._tokens)

    def end(self) -> None:
        pass

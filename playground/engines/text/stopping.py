"""Stop strings in a text that arrives in pieces of any size.

Holds back only what could still become a stop string. Where several match, the one that is complete first counts, so
the result does not depend on where the pieces were cut. Knows no tokens; the answer of an engine passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """`found` becomes true when a stop string is complete: the text before it has come out, the rest never does."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._patterns = [_Pattern(stop) for stop in stops]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """More text in; what can be no part of a stop string comes out."""
        text = self._held + text
        for index in range(len(self._held), len(text)):
            # The longest of those that end here starts first: all that it covers is kept back.
            matched = max((p.length for p in self._patterns if p.completes_with(text[index])), default=0)
            if matched:
                self.found, self._held = True, ""
                return text[: index + 1 - matched]
        cut = len(text) - max((p.begun for p in self._patterns), default=0)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """The text is over: what only began like a stop string comes out."""
        held, self._held = self._held, ""
        return held


class _Pattern:
    """Knuth-Morris-Pratt: `begun` is how many characters of the stop string the text ends with."""

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self.length = len(stop)
        self.begun = 0
        self._fallback = [0] * len(stop)
        for index in range(1, len(stop)):
            self._fallback[index] = self._advance(self._fallback[index - 1], stop[index])

    def completes_with(self, character: str) -> bool:
        self.begun = self._advance(self.begun, character)
        return self.begun == self.length

    def _advance(self, begun: int, character: str) -> int:
        while begun and (begun == self.length or self._stop[begun] != character):
            begun = self._fallback[begun - 1]
        return begun + (self._stop[begun] == character)

"""A server's deltas on their way to the screen: halves of characters joined, stop strings cut, whole graphemes only.

A server may cut anywhere, even between the halves of an emoji, and may pass stop strings on. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.engines.text.graphemes import GraphemeBuffer
from playground.engines.text.stopping import StopStrings
from playground.types import FinishReason


class RemoteAnswer:
    """`finish_reason` is None until the answer is over."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._half = ""
        self._stops = StopStrings(stop)
        self._graphemes = GraphemeBuffer()
        self.finish_reason: FinishReason | None = None

    def read(self, text: str) -> str:
        """The delta that more text makes; `finish_reason` is "stop" behind a stop string."""
        text = self._stops.push(self._whole(text))
        if self._stops.found:
            return self.finish("stop", text)
        return self._graphemes.push(text)

    def finish(self, reason: FinishReason, text: str = "") -> str:
        """The answer ends here: what was held back comes out."""
        self.finish_reason = reason
        return self.rest(text)

    def rest(self, text: str = "") -> str:
        """What was held back, without an end: the connection broke."""
        half, self._half = self._half, ""
        if not self._stops.found:
            text += self._stops.push(joined(half)) + self._stops.flush()
        return self._graphemes.push(text) + self._graphemes.flush()

    def _whole(self, text: str) -> str:
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return joined(text)


def joined(text: str) -> str:
    """JSON may spell an emoji as two halves; each by itself is no text and becomes U+FFFD."""
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

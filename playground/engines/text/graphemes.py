"""Text that grows at its end, handed on in whole grapheme clusters: never half a syllable, flag or emoji.

The last cluster is held back until the next one begins, because any character may still be extended (a vowel sign, a
combining accent, a joiner). Knows no tokens and no engine; the answer of an engine passes through it last.
"""

from __future__ import annotations

import unicodedata

import regex

HELD_LIMIT = 64
"""Code points that may be held back. A "cluster" longer than this (endless combining marks) goes out in pieces, so
that the cost of a character does not grow with the text."""

_CLUSTER = regex.compile(r"\X")
_ZERO_WIDTH_JOINER = "\u200d"
_VIRAMA = 9  # the canonical combining class of the signs that join a consonant to the next one


class GraphemeBuffer:
    """Give it text with `push`, end with `flush`; what comes out, joined, is what went in."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """More text in; the clusters that are now known to be whole come out."""
        held = self._held + text
        cut = _last_unit(held)
        if len(held) - cut > HELD_LIMIT:
            cut = len(held)
        self._held = held[cut:]
        return held[:cut]

    def flush(self) -> str:
        """The text is over: what was held back comes out."""
        held, self._held = self._held, ""
        return held


def unit_ends(text: str) -> frozenset[int]:
    """Every index at which the text may be cut: where a cluster ends, and the next letter is not tied to it."""
    return frozenset(match.end() for match in _CLUSTER.finditer(text) if not _ties(text, match.end()))


def _last_unit(text: str) -> int:
    """Where the last cluster of the text starts, with whatever a virama or joiner ties to its left."""
    starts = [match.start() for match in _CLUSTER.finditer(text)]
    while starts and _ties(text, starts[-1]):
        starts.pop()
    return starts[-1] if starts else 0


def _ties(text: str, at: int) -> bool:
    """Whether the letter at this index joins the character before it.

    Unicode's clusters keep some scripts' conjuncts together and cut others behind the virama (Tamil, Kannada,
    Gurmukhi); on the screen the cut shows the virama for an instant.
    """
    if not 0 < at < len(text) or not unicodedata.category(text[at]).startswith("L"):
        return False
    before = text[at - 1]
    return before == _ZERO_WIDTH_JOINER or unicodedata.combining(before) == _VIRAMA

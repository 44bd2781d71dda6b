"""A server's probabilities as the page shows them: the fewest tokens that make whole characters of the answer.

The server's spelling of a token is not always its part of the text: where the spellings do not make a chunk's text,
the chunk's tokens stay together. Knows no model. Called by `remote`.
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.engines.remoting.told import UNKNOWN_ID, Told, ToldToken
from playground.engines.text.graphemes import unit_ends
from playground.types import LikelyToken, ScoredPiece, TokenScore

_Part = tuple[str, tuple[ToldToken, ...]]
"""A stretch of the answer that no cut goes through, and its tokens; without text it belongs to what follows."""


class ScoredPieces:
    """Give it chunks with `push`, end with `flush`; the pieces' texts joined are the text of chunks with tokens.

    A token of the last chunk that has no part in the text is what ended the answer, and a piece of its own.
    """

    def __init__(self) -> None:
        self._held: list[_Part] = []
        self._end: tuple[ScoredPiece, ...] = ()

    def push(self, told: Told) -> tuple[ScoredPiece, ...]:
        """The pieces that are now known to be whole: the last is held back, for the next may extend it."""
        if told.finish_reason == "stop" and not told.text and len(told.tokens) == 1:
            self._end = (ScoredPiece(told.tokens[0].text, (_score(told.tokens[0]),), is_control=True),)
        elif told.tokens:
            self._held += _parts(told)
        elif told.text and self._held:
            self._held.append((told.text, ()))
        return self._cut(_boundaries(self._held)[:-1])

    def flush(self) -> tuple[ScoredPiece, ...]:
        """The answer is over."""
        pieces = self._cut([*_boundaries(self._held)[:-1], len(self._held)]) + self._end
        self._end = ()
        return pieces

    def _cut(self, ends: Sequence[int]) -> tuple[ScoredPiece, ...]:
        pieces, start = [], 0
        for end in ends:
            pieces.append(_piece(self._held[start:end]))
            start = end
        self._held = self._held[start:]
        return tuple(piece for piece in pieces if piece.tokens)


def _parts(told: Told) -> list[_Part]:
    if "".join(token.text for token in told.tokens) == told.text:
        return [(token.text, (token,)) for token in told.tokens]
    return [(told.text, told.tokens)]


def _boundaries(parts: Sequence[_Part]) -> list[int]:
    """Behind which of the parts, by number from 1, the text may be cut."""
    whole = unit_ends("".join(text for text, _ in parts))
    ends, length = [], 0
    for number, (text, _) in enumerate(parts, 1):
        length += len(text)
        if text and length in whole:
            ends.append(number)
    return ends


def _piece(parts: Sequence[_Part]) -> ScoredPiece:
    return ScoredPiece(
        "".join(text for text, _ in parts), tuple(_score(token) for _, tokens in parts for token in tokens)
    )


def _score(token: ToldToken) -> TokenScore:
    likeliest = tuple(
        LikelyToken(token.token_id if text == token.text else UNKNOWN_ID, text, probability)
        for text, probability in token.likeliest
    )
    return TokenScore(token.token_id, token.text, token.probability, likeliest)

"""A finished answer cut into the fewest tokens that a person can read: whole grapheme clusters, as the answer has them.

Uses the answer's own detokenizer, so that the pieces joined are its text. Knows no model. Called by `scoring`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from playground.engines.text.detokenizer import Detokenizer
from playground.engines.text.graphemes import unit_ends


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """The tokens `first` to `end` of an answer, `end` excluded, and the text that they make."""

    text: str
    first: int
    end: int


def cut(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], eos_ids: Collection[int]) -> list[AnswerPiece]:
    """Pieces that cover all tokens, in order.

    The text of an end token is its spelling. Where an answer was cut in the middle of a character, the last piece has
    no text, for the answer does not show that character either.
    """
    text, ends = _ends(tokenizer, token_ids, eos_ids)
    whole = unit_ends(text)
    pieces: list[AnswerPiece] = []
    first = start = 0
    for index, (end, settled) in enumerate(ends, 1):
        if index == len(ends) or (settled and start < end and end in whole):
            pieces.append(AnswerPiece(text[start:end], first, index))
            first, start = index, end
    return pieces


def _ends(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], eos_ids: Collection[int]
) -> tuple[str, list[tuple[int, bool]]]:
    """The text, and for each token where what it settled ends, and whether no character is unfinished there."""
    detokenizer = Detokenizer(tokenizer)
    text = ""
    ends: list[tuple[int, bool]] = []
    for token in token_ids:
        text += detokenizer.push([token])
        ends.append((len(text), detokenizer.is_settled))
    ended = bool(token_ids) and token_ids[-1] in eos_ids
    text += detokenizer.flush(keep_broken=ended)
    return text, [*ends[:-1], *((len(text), True) for _ in ends[-1:])]

"""Tokens as a person can read them: in whole grapheme clusters, counted, and spelled as the vocabulary spells them.

Where characters and tokens do not line up (a syllable of three byte tokens, a token of two half characters), the fewest
tokens that make whole clusters are one piece. Knows tokenizers, no template and no model. Called by the encoder.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import regex

from playground.prompting.prompt import Piece, PieceKind, TokenCounts, TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Array = npt.NDArray[Any]
Offset = tuple[int, int]

KINDS: tuple[PieceKind, ...] = ("text", "bytes", "control", "tokenizer")
"""A piece is of the highest of its tokens' kinds."""

_CLUSTER = regex.compile(r"\X")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SHOWN_AS_ITSELF = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {
    **{byte: byte for byte in _SHOWN_AS_ITSELF},
    **{0x100 + place: byte for place, byte in enumerate(sorted(set(range(0x100)) - set(_SHOWN_AS_ITSELF)))},
}
"""The byte that each letter of a byte-level vocabulary stands for, as GPT-2 chose them."""


class TokenLine(NamedTuple):
    """A line of a text, from its first character to behind its end, with the pieces that begin in it."""

    start: int
    end: int
    pieces: tuple[Piece, ...]
    counts: TokenCounts


def pieces(
    text: str,
    token_ids: Sequence[int],
    offsets: Sequence[Offset],
    tokenizer: PreTrainedTokenizerBase,
    control_ids: Collection[int] = frozenset(),
) -> tuple[Piece, ...]:
    """The tokens of a text, as few together as make whole grapheme clusters.

    Pieces cover text and tokens exactly once, in order. A control token is a piece of its own, whatever follows it;
    text that the tokenizer dropped belongs to the piece before it; where no token has a place, one piece holds all.

    Args:
        offsets: of each token the characters (start, end) that it stands for, in any order; empty: not in the text.
        control_ids: tokens that are instructions to the model, not text.
    """
    if not token_ids:
        return (Piece(0, len(text), 0, 0, "text"),) if text else ()
    ids = np.array(token_ids)
    starts, ends = _places(offsets, len(text))
    is_control = np.isin(ids, list(control_ids)) & (starts < ends)
    firsts, cuts = _cuts(starts, ends, _boundaries(text, np.append(starts[is_control], ends[is_control])))
    kinds = np.maximum.reduceat(_kinds(text, ids, starts, ends, tokenizer, is_control), firsts)
    until, behind = np.append(cuts[1:], len(text)), np.append(firsts[1:], len(ids))
    kinds[cuts == until] = KINDS.index("tokenizer")
    columns = (
        cuts.tolist(),
        until.tolist(),
        firsts.tolist(),
        behind.tolist(),
        [KINDS[kind] for kind in kinds.tolist()],
    )
    return tuple(map(Piece, *columns))


def counts(text: str, token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> TokenCounts:
    """How much of a vocabulary a text takes."""
    partial = byte_ids(token_ids, tokenizer)
    return TokenCounts(len(token_ids), len(_CLUSTER.findall(text)), sum(token in partial for token in token_ids))


def names(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The vocabulary's own spelling of each token; "" for an id that it does not have."""
    spelling = _spelling(token_ids, tokenizer)
    return tuple(spelling[token] for token in token_ids)


def byte_ids(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Those of the tokens that hold only some bytes of a character."""
    is_partial = _is_partial_in_letters if _is_byte_level(tokenizer) else _is_partial_byte
    added = tokenizer.added_tokens_decoder
    spelling = _spelling(token_ids, tokenizer)
    return frozenset(token for token, name in spelling.items() if token not in added and is_partial(name))


def by_line(tokenized: TokenizedText) -> tuple[TokenLine, ...]:
    """A text line by line: each has its line break, and the pieces that begin in it. Together they are all of it."""
    lines = tokenized.text.split("\n")
    texts = [*(f"{line}\n" for line in lines[:-1]), *filter(None, lines[-1:])]
    waiting, until, found = deque(tokenized.pieces), 0, []
    for text in texts:
        start, until, own = until, until + len(text), []
        while waiting and waiting[0].start < until:
            own.append(waiting.popleft())
        found.append(TokenLine(start, until, tuple(own), _count(tokenized, text, own)))
    return tuple(found)


def _count(tokenized: TokenizedText, text: str, own: Sequence[Piece]) -> TokenCounts:
    ids = [token for piece in own for token in tokenized.token_ids[piece.first_token : piece.end_token]]
    return TokenCounts(len(ids), len(_CLUSTER.findall(text)), sum(token in tokenized.byte_ids for token in ids))


def _spelling(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    ids = list(set(token_ids))
    return {token: name or "" for token, name in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)}


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = backend.decoder if backend else None
    return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()


def _is_partial_in_letters(name: str) -> bool:
    try:
        name.translate(_BYTES).encode("latin-1").decode()
    except UnicodeDecodeError:
        return True
    except UnicodeEncodeError:  # no byte has such a letter
        return False
    return False


def _is_partial_byte(name: str) -> bool:
    """As SentencePiece spells bytes; those of ASCII are whole characters."""
    byte = _BYTE_TOKEN.fullmatch(name)
    return byte is not None and int(byte[1], 16) >= 0x80


def _places(offsets: Sequence[Offset], length: int) -> tuple[Array, Array]:
    """Where tokens start and end; one that is not in the text stands before all of it, or before what follows."""
    flat = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets))
    starts, ends = flat[::2], flat[1::2]
    inside = np.flatnonzero(starts < ends)
    if len(inside) == len(offsets):
        return starts, ends
    if not len(inside):
        return np.zeros_like(starts), np.full_like(ends, length)
    outside = starts >= ends
    follows = _least_from_here_on(np.where(outside, length, starts))
    follows[: inside[0]] = 0
    return np.where(outside, follows, starts), np.where(outside, follows, ends)


def _least_from_here_on(values: Array) -> Array:
    return np.minimum.accumulate(values[::-1])[::-1]


def _boundaries(text: str, edges: Array) -> Array:
    """For each place in the text whether a cluster ends there, or a control token begins or ends."""
    if text.isascii() and "\r" not in text:
        return np.ones(len(text) + 1, bool)
    marks = np.zeros(len(text) + 1, bool)
    lengths = np.fromiter(map(len, _CLUSTER.findall(text)), np.int64)
    marks[0] = marks[np.cumsum(lengths)] = marks[edges] = True
    return marks


def _cuts(starts: Array, ends: Array, marks: Array) -> tuple[Array, Array]:
    """Where a piece may begin: tokens and characters, such that what comes before and after in both is the same.

    Text that no token stands for goes to the left, but not to a token that is not in the text.
    """
    low, high = np.maximum.accumulate(ends)[:-1], _least_from_here_on(starts)[1:]
    is_inside = starts[:-1] < ends[:-1]
    boundaries = np.flatnonzero(marks)
    last = boundaries[np.searchsorted(boundaries, high, "right") - 1]
    first = boundaries[np.minimum(np.searchsorted(boundaries, low), len(boundaries) - 1)]
    at = np.where(is_inside, last, first)
    tokens = np.flatnonzero((low <= at) & (at <= high))
    return np.append(0, tokens + 1), np.append(0, at[tokens])


def _kinds(
    text: str, ids: Array, starts: Array, ends: Array, tokenizer: PreTrainedTokenizerBase, is_control: Array
) -> Array:
    """0 for each token that is text, 1 for one that holds part of a character, 2 for a control token."""
    kinds = np.isin(ids, list(byte_ids(ids.tolist(), tokenizer))).astype(np.int8)
    kinds[is_control] = 2
    if (unknown := tokenizer.unk_token_id) is not None:
        for index in np.flatnonzero(
            is_control & (ids == unknown)
        ):  # where it stands for a letter, it is no instruction
            if text[starts[index] : ends[index]] != tokenizer.unk_token:
                kinds[index] = 0
    return kinds

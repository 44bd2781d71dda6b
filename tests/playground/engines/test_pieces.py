"""An answer in pieces: its text and nothing else, whole characters, as few tokens a piece as can be."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import given
from scripts_of_the_world import assert_whole, byte_level_tokenizer, fallback_tokenizer, texts
from transformers import PreTrainedTokenizerFast

from playground.engines.text.answer import Answer
from playground.engines.text.pieces import cut

TOKENIZERS = {"byte level": byte_level_tokenizer, "byte fallback": fallback_tokenizer}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def shown(tokenizer: PreTrainedTokenizerFast, ids: list[int], eos_ids: set[int]) -> str:
    return Answer(tokenizer, eos_ids, ()).read(ids, finished=True) if ids else ""


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts())
def test_they_are_what_the_answer_shows_in_whole_characters(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text, add_special_tokens=False)
    for length in {len(ids), len(ids) // 2}:
        pieces = cut(tokenizer, ids[:length], set())
        assert "".join(piece.text for piece in pieces) == shown(tokenizer, ids[:length], set())
        assert_whole([piece.text for piece in pieces])
        assert [0, *(piece.end for piece in pieces)] == [*(piece.first for piece in pieces), length]
        assert all(piece.first < piece.end for piece in pieces)


def test_a_syllable_of_several_tokens_is_one_piece(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("뷁궳뷁", add_special_tokens=False)
    assert len(ids) > 3
    pieces = [piece for piece in cut(tokenizer, ids, set()) if piece.text.strip()]
    assert [piece.text.strip() for piece in pieces] == ["뷁", "궳", "뷁"]
    assert max(piece.end - piece.first for piece in pieces) > 1


def test_half_a_character_at_the_end_has_no_text() -> None:
    tokenizer = byte_level_tokenizer()
    halves = [tokenizer.convert_tokens_to_ids(byte_letter(byte)) for byte in "가나".encode()]
    assert [piece.text for piece in cut(tokenizer, halves, set())] == ["가", "나"]
    pieces = cut(tokenizer, halves[:4], set())
    assert [(piece.text, piece.first, piece.end) for piece in pieces] == [("가", 0, 3), ("", 3, 4)]


def test_a_conjunct_is_never_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("க்ஷேத்திரம் क्षत्रिय", add_special_tokens=False)
    pieces = [piece.text for piece in cut(tokenizer, ids, set())]
    joined = [left for left, right in pairwise(pieces) if regex.search(r"[\u094d\u0bcd]$", left) and right[0].isalpha()]
    assert not joined


def test_an_end_token_is_spelled_and_what_was_broken_before_it_is_shown() -> None:
    tokenizer = byte_level_tokenizer()
    eos = tokenizer.eos_token_id
    first = tokenizer.convert_tokens_to_ids(byte_letter("가".encode()[0]))
    assert [piece.text for piece in cut(tokenizer, [eos], {eos})] == ["<|endoftext|>"]
    assert "".join(piece.text for piece in cut(tokenizer, [first, eos], {eos})) == "\ufffd<|endoftext|>"


def byte_letter(byte: int) -> str:
    """How a byte-level vocabulary spells a byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return chr(byte) if byte in plain else chr(256 + others.index(byte))

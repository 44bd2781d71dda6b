"""Grapheme clusters leave whole, in every script, however the text arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts_of_the_world import SENTENCES, ZWJ, assert_whole, texts

from playground.engines.text.graphemes import HELD_LIMIT, GraphemeBuffer


def by_character(text: str) -> list[str]:
    """What comes out when the text goes in one code point at a time."""
    buffer = GraphemeBuffer()
    return [*(buffer.push(character) for character in text), buffer.flush()]


@pytest.mark.parametrize(
    "whole",
    [
        "\u1112\u1161\u11ab",  # one syllable of three conjoining jamo
        "\ud558\u11ab",  # a syllable and a final consonant that completes it
        "क्ष",
        "र्‍य",
        "স্ব",
        "ਸ੍ਰ",
        "க்ஷ",
        "ಕ್ಷೇ",
        "స్త్రీ",
        "ക്ഷേ",
        "ଜ୍ଞା",
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "🇮🇳",
        "1️⃣",
        "\r\n",
        "e\u0301\u0323",
    ],
)
def test_a_cluster_never_leaves_in_parts(whole: str) -> None:
    assert [piece for piece in by_character(f"a{whole}b") if piece] == ["a", whole, "b"]


def test_flags_leave_in_pairs() -> None:
    assert [piece for piece in by_character("🇮🇳🇰🇷🇺🇸") if piece] == ["🇮🇳", "🇰🇷", "🇺🇸"]


def test_a_virama_before_what_is_no_letter_holds_nothing_back() -> None:
    assert [piece for piece in by_character("நன் க்.") if piece] == ["ந", "ன்", " ", "க்", "."]


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_sentences_leave_whole_and_complete(sentence: str) -> None:
    pieces = by_character(sentence)
    assert "".join(pieces) == sentence
    assert_whole(pieces)


@given(st.lists(texts(), max_size=6))
def test_what_goes_in_comes_out_however_it_is_cut(pieces: list[str]) -> None:
    buffer = GraphemeBuffer()
    out = [*(buffer.push(piece) for piece in pieces), buffer.flush()]
    assert "".join(out) == "".join(pieces)
    assert_whole(out)


@pytest.mark.parametrize("endless", ["\u0301", ZWJ + "👩", "क\u094d", "\u1161"])
def test_an_endless_cluster_leaves_in_pieces(endless: str) -> None:
    pieces = by_character("a" + endless * 1000)
    assert max(map(len, pieces)) <= HELD_LIMIT + len(endless)
    assert "".join(pieces) == "a" + endless * 1000

"""Stop strings: found across pieces, held back no longer than needed, the same however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.engines.text.stopping import StopStrings

small_texts = st.text(alphabet="ab\n", max_size=40)


def run(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    """What comes out, piece by piece, and whether a stop string was found."""
    filter_ = StopStrings(stops)
    out = []
    for piece in pieces:
        out.append(filter_.push(piece))
        if filter_.found:
            return out, True
    return [*out, filter_.flush()], False


@pytest.mark.parametrize(
    ("stops", "pieces", "out", "found"),
    [
        ([], ["any", "thing"], ["any", "thing", ""], False),
        (["STOP"], ["go S", "TO", "P on"], ["go ", "", ""], True),
        (["STOP"], ["go S", "TO", "RE"], ["go ", "", "STORE", ""], False),
        (["\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", ""], True),
        (["aab"], ["aaa", "b"], ["a", ""], True),
        (["끝"], ["이제 끝", "이다"], ["이제 "], True),
        (["x", "y"], ["1y2x"], ["1"], True),
        (["abcd", "bc"], ["abcd"], ["a"], True),
        (["bc", "abc"], ["xabc"], ["x"], True),
        (["ab"], ["a"], ["", "a"], False),
    ],
)
def test_examples(stops: list[str], pieces: list[str], out: list[str], found: bool) -> None:
    assert run(stops, pieces) == (out, found)


@given(st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=3), small_texts, st.data())
def test_the_result_is_the_text_before_the_stop_that_is_complete_first(
    stops: list[str], text: str, data: st.DataObject
) -> None:
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[1]] if ends else text
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    out, found = run(stops, pieces)
    assert ("".join(out), found) == (expected, bool(ends))


@given(st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=3), small_texts)
def test_only_what_could_become_a_stop_string_is_held_back(stops: list[str], text: str) -> None:
    filter_ = StopStrings(stops)
    given_, out = "", ""
    for character in text:
        given_, out = given_ + character, out + filter_.push(character)
        if filter_.found:
            return
        held = given_[len(out) :]
        assert not held or any(stop.startswith(held) for stop in stops)

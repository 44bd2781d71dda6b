"""The line: first come, first served, a place for who comes next, and an estimate that has something to go by."""

from __future__ import annotations

import pytest
from admission_room import Clock
from hypothesis import given
from hypothesis import strategies as st

from playground.admission.line import Line


def test_who_comes_while_a_place_is_free_has_it_at_once() -> None:
    line = Line(2, Clock())
    assert line.enter("a").done()
    assert line.enter("b").done()
    assert not line.enter("c").done()
    assert [line.position(turn) for turn in "abc"] == [0, 0, 1]
    assert (line.taken, line.length) == (2, 1)


def test_a_place_goes_to_the_first_in_line() -> None:
    line = Line(1, Clock())
    line.enter("a")
    second, third = line.enter("b"), line.enter("c")
    line.leave("a")
    assert (second.done(), third.done()) == (True, False)
    assert line.position("c") == 1


def test_who_leaves_the_line_lets_the_others_move_up() -> None:
    line = Line(1, Clock())
    line.enter("a")
    waiting = {turn: line.enter(turn) for turn in "bcd"}
    line.leave("b")
    assert [line.position(turn) for turn in "bcd"] == [0, 1, 2]
    assert not any(placed.done() for placed in waiting.values())


def test_without_a_number_of_places_nobody_waits() -> None:
    line = Line(None, Clock())
    assert all(line.enter(str(number)).done() for number in range(100))
    assert line.estimate_s(1) is None


def test_there_is_no_estimate_before_a_turn_has_ended() -> None:
    clock = Clock()
    line = Line(2, clock)
    for turn in "abcd":
        line.enter(turn)
    line.leave("c")
    assert line.estimate_s(1) is None, "who left the line was never answered"
    clock.pass_s(10)
    line.leave("a")
    assert [line.estimate_s(position) for position in (1, 2, 3, 4)] == pytest.approx([1, 10, 10, 20])


def test_the_estimate_follows_the_turns_of_late() -> None:
    clock = Clock()
    line = Line(1, clock)
    for seconds in (100, *[10] * 30):
        line.enter("a")
        clock.pass_s(seconds)
        line.leave("a")
    line.enter("a")
    assert line.estimate_s(1) == pytest.approx(10, abs=0.2)


def test_the_estimate_counts_what_has_passed_and_knows_nothing_of_turns_that_last_longer() -> None:
    clock = Clock()
    line = Line(2, clock)
    line.enter("a")
    clock.pass_s(10)
    line.leave("a")
    line.enter("b")
    clock.pass_s(4)
    line.enter("c")
    assert [line.estimate_s(position) for position in (1, 2, 3)] == pytest.approx([6, 10, 16])
    clock.pass_s(5.5)
    assert line.estimate_s(1) == 1, "no wait is shorter"
    clock.pass_s(1)
    assert [line.estimate_s(position) for position in (1, 2, 3)] == [None, pytest.approx(3.5), None]


def test_who_was_not_answered_to_the_end_tells_nothing_of_the_next() -> None:
    clock = Clock()
    line = Line(1, clock)
    for seconds, is_answered in ((10, True), (1, False), (300, False)):
        line.enter("a")
        clock.pass_s(seconds)
        line.leave("a", is_answered)
    line.enter("b")
    assert line.estimate_s(1) == pytest.approx(10)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(1, 3))
def test_places_are_never_more_than_there_are_and_never_empty_while_someone_waits(
    steps: list[tuple[bool, int]], places: int
) -> None:
    line = Line(places, Clock())
    here: list[int] = []
    for comes, number in steps:
        if comes and number not in here:
            line.enter(str(number))
            here.append(number)
        elif not comes and number in here:
            line.leave(str(number))
            here.remove(number)
        positions = [line.position(str(each)) for each in here]
        assert positions == [max(0, place - line.taken + 1) for place in range(len(here))]
        assert line.taken == min(places, len(here))

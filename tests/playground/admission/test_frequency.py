"""So often within a minute, for as many askers as may come."""

from __future__ import annotations

import pytest
from admission_room import Clock

from playground.admission.frequency import REMEMBERED, Frequency


def test_a_minute_slides() -> None:
    clock = Clock()
    asked = Frequency(3, clock)
    for _ in range(3):
        assert asked.wait_s("a") == 0
        asked.count("a")
        clock.pass_s(10)
    assert asked.wait_s("a") == pytest.approx(30)
    assert asked.wait_s("b") == 0
    clock.pass_s(30)
    assert asked.wait_s("a") == 0
    asked.count("a")
    assert asked.wait_s("a") == pytest.approx(10)


def test_without_a_limit_nothing_is_kept() -> None:
    asked = Frequency(None, Clock())
    asked.count("a")
    assert (asked.wait_s("a"), len(asked)) == (0, 0)


def test_who_asked_longer_ago_than_a_minute_is_forgotten() -> None:
    clock = Clock()
    asked = Frequency(3, clock)
    for number in range(50):
        asked.count(number)
    clock.pass_s(61)
    asked.count("a")
    assert len(asked) == 1


def test_a_hundred_thousand_addresses_take_no_more_room_than_ten_thousand() -> None:
    asked = Frequency(3, Clock())
    for number in range(100_000):
        asked.count(number)
    assert len(asked) == REMEMBERED
    for _ in range(2):
        asked.count(99_999)
    assert asked.wait_s(99_999) > 0, "the newest are those that are remembered"

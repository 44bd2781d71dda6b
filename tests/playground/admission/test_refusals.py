"""What the gate refuses, to whom, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from admission_room import Asker, Clock, Engines, admitted, request, turn, visitor

from playground.admission.gate import ANNOUNCED_S, Gate
from playground.admission.visitor import Visitor
from playground.errors import EngineBusyError
from playground.limits import OPEN, PUBLIC, Limits
from playground.types import GenerationChunk


async def test_who_is_announced_counts_until_it_is_let_go() -> None:
    clock = Clock()
    gate = Gate(Limits(running_per_session=1, places=1, waiting=0), clock)
    gate.admit(visitor(1), turn())
    assert "in this page already" in gate.refusal(visitor(1))
    assert "in line already" in gate.refusal(visitor(2)), "the place is promised"
    clock.pass_s(ANNOUNCED_S)
    assert (gate.refusal(visitor(1)), gate.refusal(visitor(2))) == ("", "")


@pytest.mark.parametrize(("limit", "words"), [("session", "in this page already"), ("address", "for your address")])
async def test_a_stream_that_comes_too_late_is_allowed_no_more_than_a_prompt(limit: str, words: str) -> None:
    clock = Clock()
    limits = {f"running_per_{limit}": 1, "places": 2, "asks_per_minute": 2}
    engines, gate = Engines(), Gate(Limits(**limits), clock)  # type: ignore[arg-type]
    late = request()
    gate.admit(visitor(1), [late])
    clock.pass_s(ANNOUNCED_S + 1)
    (other,) = admitted(gate, 1, engines)
    await other.hears(GenerationChunk)
    with pytest.raises(EngineBusyError, match=words):
        await anext(gate.stream(visitor(1), late, engines.stream))
    engines.end(other.asked)
    await other.end()
    again = Asker(gate, visitor(1), late, engines)
    await again.hears(GenerationChunk)
    assert "faster than 2" in gate.refusal(visitor(1)), "but it was counted in the minute when it was asked"


@pytest.mark.parametrize(("places", "own"), [(8, 3), (4, 2), (2, 1), (1, 1), (None, 3)])
def test_no_address_has_more_than_half_of_the_places(places: int | None, own: int) -> None:
    gate = Gate(replace(PUBLIC, places=places))
    for number in range(own):
        assert gate.refusal(Visitor(f"s{number}", "192.0.2.1")) == ""
        gate.admit(Visitor(f"s{number}", "192.0.2.1"), turn())
    assert "for your address already" in gate.refusal(Visitor("s9", "192.0.2.1"))
    assert gate.refusal(Visitor("s9", "192.0.2.2")) == ""


async def test_faster_than_so_often_a_minute_is_refused_with_the_seconds() -> None:
    clock = Clock()
    gate = Gate(Limits(asks_per_minute=2), clock)
    for _ in range(2):
        gate.admit(visitor(), turn())
        clock.pass_s(20)
    assert gate.refusal(visitor()) == "You are asking faster than 2 prompts a minute: wait 20 s."
    assert gate.refusal(visitor(1)) == ""
    with pytest.raises(EngineBusyError, match="wait 20 s"):
        gate.admit(visitor(), turn())
    clock.pass_s(20.5)
    gate.admit(visitor(), turn())


async def test_a_refused_prompt_counts_for_nothing() -> None:
    clock = Clock()
    gate = Gate(Limits(asks_per_minute=5, running_per_session=1), clock)
    gate.admit(visitor(), turn())
    for _ in range(20):
        with pytest.raises(EngineBusyError, match="1 prompt is answered or waiting in this page already"):
            gate.admit(visitor(), turn())
    clock.pass_s(ANNOUNCED_S + 1)
    assert gate.refusal(visitor()) == ""


async def test_the_panels_of_a_turn_count_once() -> None:
    gate = Gate(Limits(asks_per_minute=2, running_per_session=2, running_per_address=2))
    gate.admit(visitor(), turn(4))
    assert gate.refusal(visitor()) == ""
    gate.admit(visitor(), [])
    assert gate.refusal(visitor()) == ""


async def test_what_one_address_has_running_is_limited_over_all_its_sessions() -> None:
    engines = Engines()
    gate = Gate(Limits(running_per_session=2, running_per_address=3))
    for number in range(3):
        who = Visitor(f"s{number}", "2001:db8::1")
        asked = request()
        gate.admit(who, [asked])
        asker = Asker(gate, who, asked, engines)
        await asker.hears(GenerationChunk)
    assert gate.refusal(Visitor("s9", "2001:db8::ffff")).startswith(
        "3 prompts are answered or waiting for your address"
    )
    assert gate.refusal(Visitor("s9", "2001:db8:1::1")) == ""
    engines.end(asker.asked)
    await asker.end()
    assert gate.refusal(Visitor("s9", "2001:db8::ffff")) == ""


async def test_who_names_no_session_is_counted_by_address_alone() -> None:
    gate = Gate(Limits(running_per_session=1))
    gate.admit(Visitor("", "192.0.2.1"), turn())
    assert gate.refusal(Visitor("", "192.0.2.2")) == ""


async def test_a_full_line_takes_nobody_else() -> None:
    gate = Gate(Limits(places=1, waiting=2))
    for number in range(3):
        gate.admit(visitor(number), turn())
    assert gate.refusal(visitor(9)) == "2 prompts wait in line already: try again in a minute."
    with pytest.raises(EngineBusyError, match="wait in line"):
        gate.admit(visitor(9), turn())


async def test_what_takes_no_place_counts_among_the_prompts_of_a_minute() -> None:
    gate = Gate(Limits(asks_per_minute=2, places=1))
    gate.count(visitor())
    gate.admit(visitor(), turn())
    with pytest.raises(EngineBusyError, match="faster than 2 prompts a minute"):
        gate.count(visitor())
    gate.count(visitor(1))
    assert gate.taken == 0
    for _ in range(9):
        Gate(OPEN).count(visitor())

"""The gate: who waits, in what order, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import threading

import pytest
from admission_room import Asker, Clock, Engines, admitted, request, turn, visitor

from playground.admission import gate as gate_module
from playground.admission.gate import ANNOUNCED_S, Gate
from playground.admission.visitor import Visitor
from playground.errors import EngineBusyError, OutOfMemoryError
from playground.limits import OPEN, PUBLIC, Limits
from playground.types import GenerationChunk, Waiting


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "TELL_S", 0.02)


async def test_without_limits_the_gate_is_not_there() -> None:
    engines, gate = Engines(), Gate(OPEN)
    asked = request()
    events = gate.stream(visitor(), asked, engines.stream)
    assert events.__qualname__ == Engines.stream.__qualname__, "the engine's own stream, and nothing around it"
    gate.admit(visitor(), [asked])
    assert (gate.refusal(visitor()), gate.taken, gate.waiting) == ("", 0, 0)
    await events.aclose()


async def test_a_turn_takes_one_place_with_all_its_panels() -> None:
    engines, gate = Engines(), Gate(Limits(places=1))
    left, right = admitted(gate, 1, engines, panels=2)
    (other,) = admitted(gate, 2, engines)
    await left.hears(GenerationChunk)
    await right.hears(GenerationChunk)
    await other.hears(Waiting)
    engines.end(left.asked)
    await left.end()
    assert (gate.taken, gate.waiting) == (1, 1), "the last of its streams frees the place"
    engines.end(right.asked)
    await right.end()
    await other.hears(GenerationChunk)
    assert (left.told, right.told) == ([], [])
    engines.end(other.asked)
    await other.end()
    assert (gate.taken, gate.waiting) == (0, 0)


async def test_who_waits_is_told_the_position_at_once_and_each_that_follows() -> None:
    clock = Clock()
    engines, gate = Engines(), Gate(Limits(places=1), clock)
    (first,) = admitted(gate, 0, engines)
    await first.hears(GenerationChunk)
    waiting = [admitted(gate, number, engines)[0] for number in (1, 2, 3)]
    for place, asker in enumerate(waiting, 1):
        await asker.hears_position(place)
    assert all(asker.told[0].estimate_s is None for asker in waiting)
    clock.pass_s(8)
    engines.end(first.asked)
    await waiting[2].hears_position(2)
    assert waiting[2].told[-1].estimate_s == pytest.approx(16)
    for place, asker in enumerate(waiting):
        await asker.hears(GenerationChunk)
        await waiting[-1].hears_position(2 - place or 1)
        engines.end(asker.asked)
        await asker.end()
    assert [asker.positions for asker in waiting] == [[1, 0], [2, 1, 0], [3, 2, 1, 0]]


async def test_nobody_who_waits_is_left_without_a_word() -> None:
    engines, gate = Engines(), Gate(Limits(places=1))
    admitted(gate, 0, engines)
    (asker,) = admitted(gate, 1, engines)
    await asker.hears(Waiting)
    async with asyncio.timeout(20):
        while len(asker.told) < 5:
            await asyncio.sleep(0.01)
    assert asker.positions == [1]


@pytest.mark.parametrize("moment", ["in line", "in its place"])
async def test_who_goes_away_gives_the_place_up(moment: str) -> None:
    engines, gate = Engines(), Gate(Limits(places=1))
    (first,) = admitted(gate, 0, engines)
    await first.hears(GenerationChunk)
    (second,), (third,) = admitted(gate, 1, engines), admitted(gate, 2, engines)
    await second.hears(Waiting)
    await third.hears(Waiting)
    if moment == "in line":
        await second.go_away()
        await third.hears_position(1)
        assert gate.waiting == 1
        engines.end(first.asked)
    else:
        await first.go_away()
        await second.hears(GenerationChunk)
        await second.go_away()
    await third.hears(GenerationChunk)
    assert gate.taken == 1


async def test_an_error_of_the_engine_frees_the_place_and_goes_on_to_the_panel() -> None:
    gate = Gate(Limits(places=1))

    async def broken(_asked):  # type: ignore[no-untyped-def]
        yield GenerationChunk("so")
        raise OutOfMemoryError("The GPU is full.")

    asked = request()
    gate.admit(visitor(), [asked])
    events = gate.stream(visitor(), asked, broken)
    assert isinstance(await anext(events), GenerationChunk)
    assert gate.taken == 1
    with pytest.raises(OutOfMemoryError):
        await anext(events)
    assert gate.taken == 0


async def test_a_turn_whose_streams_never_come_is_let_go() -> None:
    clock = Clock()
    engines, gate = Engines(), Gate(Limits(places=1), clock)
    lost = turn(2)
    gate.admit(visitor(1), lost)
    (other,) = admitted(gate, 2, engines)
    await other.hears(GenerationChunk)
    assert (gate.taken, gate.waiting, other.told) == (1, 0, []), "who is announced only holds no place"
    late = Asker(gate, visitor(1), lost[0], engines)
    await late.hears_position(1)
    engines.end(other.asked)
    await late.hears(GenerationChunk)


async def test_the_line_is_in_the_order_in_which_the_streams_come() -> None:
    engines, gate = Engines(), Gate(Limits(places=1))
    (first,) = admitted(gate, 0, engines)
    await first.hears(GenerationChunk)
    early = turn()
    gate.admit(visitor(1), early)
    (quick,) = admitted(gate, 2, engines)
    await quick.hears_position(1)
    slow = Asker(gate, visitor(1), early[0], engines)
    await slow.hears_position(2)


async def test_a_stream_that_never_comes_keeps_the_place_no_longer_than_those_that_did() -> None:
    clock = Clock()
    engines, gate = Engines(), Gate(Limits(places=1), clock)
    came, _lost = turn(2)
    gate.admit(visitor(1), [came, _lost])
    asker = Asker(gate, visitor(1), came, engines)
    (other,) = admitted(gate, 2, engines)
    await asker.hears(GenerationChunk)
    engines.end(came)
    await asker.end()
    await other.hears(Waiting)
    assert gate.taken == 1, "the other panel's stream may still be under way"
    clock.pass_s(ANNOUNCED_S + 1)
    await other.hears(GenerationChunk)


async def test_a_stream_that_comes_too_late_lines_up_again() -> None:
    clock = Clock()
    engines, gate = Engines(), Gate(Limits(places=1, waiting=1), clock)
    late, later = request(), request()
    gate.admit(visitor(1), [late])
    clock.pass_s(ANNOUNCED_S + 1)
    (first,) = admitted(gate, 2, engines)
    await first.hears(GenerationChunk)
    asker = Asker(gate, visitor(1), late, engines)
    await asker.hears(Waiting)
    with pytest.raises(EngineBusyError, match="1 prompt waits"):
        async for _ in gate.stream(visitor(3), later, engines.stream):
            pass
    engines.end(first.asked)
    await asker.hears(GenerationChunk)


async def test_only_whole_answers_tell_how_long_the_next_will_last() -> None:
    clock = Clock()
    engines, gate = Engines(), Gate(Limits(places=1), clock)
    for number, seconds in enumerate((10, 1)):
        (asker,) = admitted(gate, number, engines)
        await asker.hears(GenerationChunk)
        clock.pass_s(seconds)
        if number:
            await asker.go_away()
        else:
            engines.end(asker.asked)
            await asker.end()
    admitted(gate, 2, engines)
    (waiting,) = admitted(gate, 3, engines)
    await waiting.hears(Waiting)
    assert waiting.told[0].estimate_s == pytest.approx(10)


async def test_ten_thousand_visitors_leave_nothing_behind() -> None:
    clock = Clock()
    gate, asked = Gate(PUBLIC, clock), request()
    for number in range(10_000):
        clock.pass_s(2)
        who = Visitor(f"s{number}", f"10.0.{number >> 8}.{number & 255}")
        gate.admit(who, [asked.model_copy(update={"turn_id": str(number)})])
    assert gate.taken + gate.waiting <= 10
    assert len(gate._asked) <= 31
    assert len(gate._turns) <= 10


def test_it_may_be_used_from_several_loops_at_once() -> None:
    """As the page's handlers and the API may be, each on a loop of its own."""
    gate, order = Gate(Limits(places=1)), []

    async def ask(number: int) -> None:
        engines = Engines()
        (asker,) = admitted(gate, number, engines)
        await asker.hears(GenerationChunk)
        order.append(number)
        assert gate.taken == 1
        await asyncio.sleep(0.02)
        engines.end(asker.asked)
        await asker.end()

    threads = [threading.Thread(target=lambda n=n: asyncio.run(ask(n))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(order) == list(range(6))
    assert (gate.taken, gate.waiting) == (0, 0)

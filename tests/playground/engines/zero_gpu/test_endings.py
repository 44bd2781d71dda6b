"""How answers in a grant end: stopped, left, failed, killed; each takes its own panel only, and nothing runs on."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from adapter_shelf import Shelf
from grant_room import ENDLESS, Listener, Space, ask, both, placed, space, until

from playground.engines.batched import BatchedEngine
from playground.engines.zero_gpu.rehearsal import RehearsedError
from playground.engines.zero_gpu.turn import Said, Turn
from playground.errors import ContextFullError, EngineBusyError, EngineClosedError, EngineError
from playground.types import AdapterUse, GenerationChunk, GenerationRequest, LoadProgress

VISITOR: contextvars.ContextVar[str] = contextvars.ContextVar("VISITOR", default="nobody")


def completion_tokens(event: Any) -> int:
    assert isinstance(event, GenerationChunk)
    assert event.usage
    return event.usage.completion_tokens


async def test_a_panel_that_is_closed_stops_in_the_worker_and_the_other_goes_on() -> None:
    one = space()
    requests = both(**ENDLESS)
    one.pool.expect(requests)
    left, right = (Listener(one.pool, request) for request in requests)
    await left.speaks()
    await left.go_away()
    await until(lambda: one.is_over(0))
    assert one.last(0).finish_reason == "abort"
    assert completion_tokens(one.last(0)) < 700
    assert not one.is_over(1)
    before = completion_tokens(one.last(1))
    assert await right.done()
    assert right.end in ("stop", "length")
    assert completion_tokens(right.chunks[-1]) > before
    await one.pool.close()


async def test_an_abort_ends_the_stream_with_what_was_said() -> None:
    one = space()
    requests = both(**ENDLESS)
    one.pool.expect(requests)
    left, right = (Listener(one.pool, request) for request in requests)
    await right.speaks()
    await one.pool.abort(requests[1].request_id)
    said = await right.done()
    assert said
    assert right.end == "abort"
    assert completion_tokens(right.chunks[-1]) < 700
    await one.pool.abort("unknown")
    await left.go_away()
    await one.pool.close()


async def both_answering(one: Space, requests: Sequence[GenerationRequest]) -> list[Listener]:
    """The panels of one turn, when each has begun to speak."""
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    for listener in listeners:
        await listener.speaks()
    return listeners


async def test_when_all_have_left_the_grant_ends_and_leaves_nothing() -> None:
    one = space()
    requests = both(**ENDLESS)
    listeners = await both_answering(one, requests)
    grant = next(iter(one.pool._running))
    folder = one.turns[0].folder
    assert folder.exists()
    for listener in listeners:
        await listener.go_away()
    await until(grant.ended.is_set)
    await until(one.is_still)
    assert all(completion_tokens(one.last(number)) < 700 for number in (0, 1) if one.is_over(number))
    assert not folder.exists()
    await one.pool.close()


async def test_a_stream_that_is_closed_at_once_asks_for_no_gpu() -> None:
    known, go_on = threading.Event(), threading.Event()

    class SlowShelf(Shelf):
        def check(self, *question: Any) -> Any:
            known.set()
            go_on.wait()
            return super().check(*question)

    one = space(adapters=SlowShelf())
    request = ask("demo-kullm3").model_copy(update={"adapter": AdapterUse(id="formal", revision="r1")})
    async with aclosing(one.pool.stream(request)) as events:
        assert await anext(events) == LoadProgress("waiting")
        await asyncio.to_thread(known.wait)
    grant = next(iter(one.pool._running))
    go_on.set()
    await until(grant.ended.is_set)
    assert one.rehearsal.grants == []
    await one.pool.close()


async def test_a_full_context_is_told_to_its_own_panel() -> None:
    one = space()
    requests = [ask("demo-krutrim", "नमस्ते " * 2000), ask("demo-kullm3")]
    one.pool.expect(requests)
    full, other = (Listener(one.pool, request) for request in requests)
    with pytest.raises(ContextFullError) as told:
        await full.done()
    assert told.value.excess > 0
    assert await other.done()
    assert other.end == "stop"
    assert len(one.rehearsal.grants) == 1
    await one.pool.close()


async def test_a_model_that_fails_in_the_worker_leaves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> BatchedEngine:
        raise LookupError("no such kernel")

    monkeypatch.setattr(placed()["demo-krutrim"], "start", refuse)
    one = space(reuse=True)
    requests = both()
    one.pool.expect(requests)
    failed, other = (Listener(one.pool, request) for request in requests)
    with pytest.raises(EngineError, match=r"Krutrim stand-in failed: no such kernel. Try again"):
        await failed.done()
    assert await other.done()
    assert other.end == "stop"
    await until(one.is_still)  # it is not used again
    await one.pool.close()


async def test_a_worker_that_is_killed_leaves_what_was_said() -> None:
    one = space()
    requests = both(**ENDLESS)
    listeners = await both_answering(one, requests)
    os.kill(one.rehearsal.workers[0], signal.SIGKILL)
    for listener in listeners:
        with pytest.raises(EngineError, match="The GPU was taken back in the middle of the answer"):
            await listener.done()
        assert listener.text
    again = ask("demo-kullm3", turn_id="again")
    assert await Listener(one.pool, again).done()
    await one.pool.close()


async def test_an_exception_of_the_task_is_told_to_all() -> None:
    def task(turn: Turn) -> Iterator[list[Said]]:
        yield [Said(0, GenerationChunk("Well"))]
        raise ZeroDivisionError

    one = space(task)
    requests = both()
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    for listener in listeners:
        with pytest.raises(EngineError, match=r"The process with the GPU failed: ZeroDivisionError. Send again"):
            await listener.done()
    assert listeners[0].text == "Well"
    await one.pool.close()


async def test_a_task_that_ends_without_a_word_is_told() -> None:
    def task(turn: Turn) -> Iterator[list[Said]]:
        yield [Said(0, GenerationChunk("Well.", "stop"))]

    one = space(task)
    requests = both()
    one.pool.expect(requests)
    said, silent = (Listener(one.pool, request) for request in requests)
    assert await said.done() == "Well."
    with pytest.raises(EngineError, match="without saying why"):
        await silent.done()
    await one.pool.close()


async def test_a_question_that_cannot_be_pickled_is_refused_with_a_sentence() -> None:
    class Strange(Shelf):
        def check(self, *question: Any) -> Any:
            return lambda: None

    one = space(adapters=Strange())
    request = ask("demo-kullm3").model_copy(update={"adapter": AdapterUse(id="formal", revision="r1")})
    with pytest.raises(EngineError, match="cannot be sent to the GPU"):
        await Listener(one.pool, request).done()
    await until(one.is_still)
    assert await Listener(one.pool, ask("demo-kullm3")).done()
    await one.pool.close()


async def test_a_quota_that_is_used_up_is_told_in_every_panel() -> None:
    def refuse(turn: Turn) -> None:
        raise RehearsedError("ZeroGPU quota exceeded", "You have exceeded it (60s vs. 2s). Try again in 0:12:00. ")

    one = space(before=refuse)
    requests = both()
    one.pool.expect(requests)
    for listener in [Listener(one.pool, request) for request in requests]:
        with pytest.raises(EngineBusyError, match="Try again in 12 minutes"):
            await listener.done()
    await one.pool.close()


async def test_the_visitor_is_known_where_the_gpu_is_asked_for() -> None:
    visitors = []
    one = space(before=lambda turn: visitors.append(VISITOR.get()))
    VISITOR.set("somebody")
    assert await Listener(one.pool, ask("demo-kullm3")).done()
    assert visitors == ["somebody"]
    await one.pool.close()


async def test_a_panel_that_was_announced_and_never_comes_is_stopped() -> None:
    one = space(join_s=0.3)
    requests = both(**ENDLESS)
    one.pool.expect(requests)
    came = Listener(one.pool, requests[1])
    await until(lambda: one.is_over(0))
    assert one.last(0).finish_reason == "abort"
    assert not one.is_over(1)
    late = Listener(one.pool, requests[0])
    await late.speaks()
    assert len(one.rehearsal.grants) == 2
    await late.go_away()
    await came.go_away()
    await one.pool.close()


async def test_what_was_said_before_a_panel_came_is_kept_for_it() -> None:
    one = space()
    requests = both()
    one.pool.expect(requests)
    first = Listener(one.pool, requests[0])
    assert await first.done()
    await until(lambda: one.is_over(1))
    assert await Listener(one.pool, requests[1]).done()
    assert len(one.rehearsal.grants) == 1
    await one.pool.close()


async def test_turns_that_never_begin_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playground.engines.zero_gpu.pool.PENDING", 2)
    one = space()
    for number in range(4):
        one.pool.expect(both(f"turn {number}"))
    assert [*one.pool._announced] == ["turn 2", "turn 3"]
    assert await Listener(one.pool, ask("demo-kullm3", turn_id="turn 0")).done()
    await one.pool.close()


async def test_closing_ends_every_answer() -> None:
    one = space()
    requests = both(**ENDLESS)
    listeners = await both_answering(one, requests)
    await one.pool.close()
    for listener in listeners:
        with pytest.raises(EngineClosedError, match="shutting down"):
            await listener.done()
    await until(one.is_still)
    with pytest.raises(EngineClosedError):
        await Listener(one.pool, requests[0]).done()
    with pytest.raises(EngineClosedError):
        one.pool.expect(requests)

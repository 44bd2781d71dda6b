"""Stops while the GPU is waited for, which a line of visitors may make long: each panel is told at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from adapter_shelf import Shelf
from grant_room import PATIENCE_S, Listener, Space, ask, both, space, until

from playground.errors import EngineClosedError
from playground.types import AdapterUse


@dataclass
class Line:
    """Before the GPU: `reached` is set when it is asked for, and it is given when `passed` is."""

    reached: threading.Event = field(default_factory=threading.Event)
    passed: threading.Event = field(default_factory=threading.Event)

    def wait(self, *_: Any) -> None:
        self.reached.set()
        assert self.passed.wait(PATIENCE_S)

    async def is_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE_S)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    yield line
    line.passed.set()


async def waiting(line: Line) -> tuple[Space, list[Listener], list[str]]:
    """Two panels in the line, and the ids of what they asked."""
    one = space(before=line.wait)
    requests = both()
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    await line.is_reached()
    return one, listeners, [request.request_id for request in requests]


async def test_a_stop_ends_its_panel_at_once_and_the_other_goes_on_waiting(line: Line) -> None:
    one, (left, right), (request_id, _) = await waiting(line)
    await one.pool.abort(request_id)
    assert await left.done() == ""
    assert [chunk.finish_reason for chunk in left.chunks] == ["abort"]
    assert right.chunks == []
    line.passed.set()
    assert await right.done()
    assert right.end == "stop"
    assert one.last(0).finish_reason == "abort"
    await one.pool.close()


async def test_when_all_have_stopped_the_grant_ends_with_the_first_word_of_its_worker(line: Line) -> None:
    one, listeners, request_ids = await waiting(line)
    for listener, request_id in zip(listeners, request_ids, strict=True):
        await one.pool.abort(request_id)
        await listener.done()
    grant = next(iter(one.pool._running))
    assert not grant.ended.is_set()
    line.passed.set()
    await until(grant.ended.is_set)
    await until(one.is_still)
    assert len(one.heard) == 2
    assert [listener.end for listener in listeners] == ["abort", "abort"]
    await one.pool.close()


async def test_a_pool_that_is_closed_says_so_to_who_waits(line: Line) -> None:
    one, listeners, _ = await waiting(line)
    closing = asyncio.create_task(one.pool.close())
    for listener in listeners:
        with pytest.raises(EngineClosedError, match="shutting down"):
            await listener.done()
    line.passed.set()
    await closing
    await until(one.is_still)


async def test_a_stop_while_an_adapter_is_inspected_asks_for_no_gpu(line: Line) -> None:
    class SlowShelf(Shelf):
        def check(self, *question: Any) -> Any:
            inspected.append(question)
            line.wait()
            return super().check(*question)

    inspected: list[Any] = []
    one = space(adapters=SlowShelf())
    use = AdapterUse(id="formal", revision="r1")
    requests = [ask("demo-kullm3", seed=seed).model_copy(update={"adapter": use}) for seed in (1, 2)]
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    await line.is_reached()
    for listener, request in zip(listeners, requests, strict=True):
        await one.pool.abort(request.request_id)
        assert await listener.done() == ""
        assert listener.end == "abort"
    grant = next(iter(one.pool._running))
    line.passed.set()
    await until(grant.ended.is_set)
    assert len(inspected) == 1
    assert (one.rehearsal.grants, one.turns) == ([], [])
    await one.pool.close()

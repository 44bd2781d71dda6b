"""The pool and adapters when something ends: bases that leave, loads given up, faults, killed processes, the pool."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import machine
from pool_panel import Panel, make_ready, make_view_ready

from playground.errors import (
    DownloadError,
    EngineBusyError,
    EngineClosedError,
    EngineError,
    LoadCancelledError,
    OutOfMemoryError,
)


async def test_a_working_view_keeps_its_base() -> None:
    pool, loads = machine(room_for=1.6)
    base = await make_ready(pool, loads, "a")
    panel = Panel(pool, "a", "formal")
    attach = await base.next_view()
    with pytest.raises(EngineBusyError, match="A is answering: wait until it is done, or stop it"):
        await pool.unload("a")
    view = attach.arrive()
    await panel.speaks()
    with pytest.raises(EngineBusyError, match="A is answering"):
        await pool.unload("a")
    pool.cancel("a")  # is there: nothing to give up
    view.finish()
    assert await panel.end() == "one end"
    await pool.unload("a")
    assert sorted(loads.diary) == ["attach a+formal", "gone a", "gone a+formal", "load a"]
    await pool.close()


async def test_an_unloaded_model_takes_its_views_along_and_both_come_back() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    await make_view_ready(pool, base, "formal")
    base.hold_close()
    unloading = asyncio.create_task(pool.unload("a"))
    assert await asyncio.to_thread(base.closing.wait, 20)
    assert pool.memory()[0].engines == ()
    again = Panel(pool, "a", "formal")
    await again.waits(steps=2)
    assert loads.count("a") == 1
    base.let_go()
    await unloading
    anew = (await loads.next("a")).arrive()
    (await anew.next_view()).arrive().finish()
    assert await again.end() == "one end"
    await pool.close()


async def test_giving_up_the_base_ends_the_waits_for_its_views_with_the_same_sentence() -> None:
    pool, loads = machine(room_for=3)
    panels = [Panel(pool, "a"), Panel(pool, "a", "formal"), Panel(pool, "a", "casual")]
    load = await loads.next("a")
    for panel in panels:
        await panel.waits()
    pool.cancel("a")
    for panel in panels:
        with pytest.raises(LoadCancelledError, match=r"^Loading A was cancelled: ask again to load it\.$"):
            await panel.end()
    again = Panel(pool, "a", "formal")
    await asyncio.to_thread(load.obey)
    base = (await loads.next("a")).arrive()
    (await base.next_view()).arrive().finish()
    assert await again.end() == "one end"
    assert loads.diary == ["load a", "gone a", "load a", "attach a+formal"]
    await pool.close()


async def test_what_keeps_the_base_from_loading_is_told_to_who_waits_for_a_view() -> None:
    pool, loads = machine(room_for=3)
    panels = [Panel(pool, "a", "formal"), Panel(pool, "a")]
    load = await loads.next("a")
    for panel in panels:
        await panel.waits()
    load.fail(DownloadError("org/a is gated: accept its terms."))
    for panel in panels:
        with pytest.raises(DownloadError, match="org/a is gated"):
            await panel.end()
    assert pool.status("a").detail == "org/a is gated: accept its terms."
    again = Panel(pool, "a", "formal")
    base = (await loads.next("a")).arrive()
    (await base.next_view()).arrive().finish()
    assert await again.end() == "one end"
    await pool.close()


@pytest.mark.parametrize("error", [OutOfMemoryError("cpu is full: close other adapters."), RuntimeError("a secret")])
async def test_a_view_that_cannot_be_attached_fails_alone_and_is_tried_again(error: Exception) -> None:
    pool, loads = machine(room_for=1.6)
    plain = Panel(pool, "a")
    base = (await loads.next("a")).arrive()
    panels = [Panel(pool, "a", "formal"), Panel(pool, "a", "formal")]
    attach = await base.next_view()
    for panel in panels:
        await panel.reaches("adapter")
    attach.fail(error)
    for panel in panels:
        with pytest.raises(type(error), match=str(error)):
            await panel.end()
    assert pool.status("a").state == "ready"
    other = Panel(pool, "a", "casual")  # the room of the one that failed is free
    (await base.next_view()).arrive().finish()
    assert await other.end() == "one end"
    again = Panel(pool, "a", "formal")
    (await base.next_view()).arrive().finish()
    assert await again.end() == "one end"
    base.finish()
    assert await plain.end() == "one end"
    await pool.unload("a")  # nobody is counted any more
    await pool.close()


async def test_a_user_who_goes_away_does_not_end_the_attaching_for_others() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    leaving, staying = Panel(pool, "a", "formal"), Panel(pool, "a", "formal")
    attach = await base.next_view()
    await leaving.reaches("adapter")
    await leaving.go_away()
    attach.arrive().finish()
    assert await staying.end() == "one end"
    await pool.close()


async def test_a_killed_process_takes_its_views_and_the_next_request_loads_and_attaches_anew() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    answering, attaching = Panel(pool, "a", "formal"), Panel(pool, "a", "casual")
    attaches = {attach.tag: attach for attach in [await base.next_view(), await base.next_view()]}
    attaches["a+formal"].arrive()
    await answering.speaks()
    await attaching.reaches("adapter")
    base.die(EngineError("A is gone: its process ended."))
    for panel in (answering, attaching):
        with pytest.raises(EngineError, match="A is gone: its process ended"):
            await panel.end()
    assert pool.status("a").state == "download"
    again = Panel(pool, "a", "formal")
    anew = (await loads.next("a")).arrive()
    (await anew.next_view()).arrive().finish()
    assert await again.end() == "one end"
    assert loads.count("a") == 2
    await pool.close()


async def test_a_dead_process_is_told_to_who_waits_for_a_view_of_it_whoever_finds_it() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    panel = Panel(pool, "a", "formal")
    await base.next_view()
    await panel.reaches("adapter")
    base.alive = False  # and nobody has told those who ask it yet
    assert pool.status("a").state == "download"
    with pytest.raises(EngineError, match="A is gone: its process ended"):
        await panel.end()
    again = Panel(pool, "a", "formal")
    anew = (await loads.next("a")).arrive()
    (await anew.next_view()).arrive().finish()
    assert await again.end() == "one end"
    await pool.close()


async def test_a_view_that_died_alone_is_attached_anew() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    view = await make_view_ready(pool, base, "formal")
    view.alive = False
    again = Panel(pool, "a", "formal")
    (await base.next_view()).arrive().finish()
    assert await again.end() == "one end"
    assert loads.diary == ["load a", "attach a+formal", "gone a+formal", "attach a+formal"]
    await pool.close()


async def test_close_tells_who_waits_for_a_view_and_who_is_answered_by_one() -> None:
    pool, loads = machine(room_for=4)
    base = await make_ready(pool, loads, "a")
    answering = Panel(pool, "a", "formal")
    view = (await base.next_view()).arrive()
    await answering.speaks()
    attaching = Panel(pool, "a", "casual")
    await base.next_view()
    await attaching.reaches("adapter")
    waiting = Panel(pool, "b", "formal")
    load = await loads.next("b")
    await waiting.waits()
    closing = asyncio.create_task(pool.close())
    with pytest.raises(EngineClosedError, match="stopped"):
        await answering.end()
    for panel in (attaching, waiting):
        with pytest.raises(EngineClosedError, match="shutting down"):
            await panel.end()
    await asyncio.to_thread(load.obey)
    await closing
    assert view.closing.is_set()
    for verb in (lambda: Panel(pool, "a", "formal").end(), lambda: pool.adapter("a", "formal")):
        with pytest.raises(EngineClosedError, match="shutting down"):
            await verb()

"""The pool when something ends at a moment that the test chooses: unloads, loads given up, users, faults, the pool."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import machine
from pool_panel import Panel, make_ready

from playground.errors import DownloadError, EngineBusyError, EngineClosedError, EngineError, LoadCancelledError


async def test_unload_refuses_while_it_answers_or_is_waited_for() -> None:
    pool, loads = machine(room_for=1.5)
    panel = Panel(pool, "a")
    load = await loads.next("a")
    with pytest.raises(EngineBusyError, match="A is being loaded: wait until it is done, or stop it"):
        await pool.unload("a")
    engine = load.arrive()
    await panel.speaks()
    with pytest.raises(EngineBusyError, match="A is answering: wait until it is done, or stop it"):
        await pool.unload("a")
    engine.finish()
    assert await panel.end() == "one end"
    await pool.unload("a")
    assert loads.diary == ["load a", "gone a"]
    await pool.unload("a")  # is not there: nothing to do
    await pool.close()


async def test_unload_ends_a_load_that_nobody_waits_for() -> None:
    pool, loads = machine(room_for=1.5)
    pool.preload(["a"])
    load = await loads.next("a")
    unloading = asyncio.create_task(pool.unload("a"))
    await asyncio.to_thread(load.obey)
    await unloading
    assert pool.status("a").state == "download"
    await pool.close()


async def test_a_cancelled_load_ends_all_who_wait_and_the_next_request_begins_anew() -> None:
    pool, loads = machine(room_for=1.5)
    panels = [Panel(pool, "a"), Panel(pool, "a")]
    former = await loads.next("a")
    for panel in panels:
        await panel.waits()
    pool.cancel("a")
    for panel in panels:
        with pytest.raises(LoadCancelledError, match="Loading A was cancelled: ask again to load it"):
            await panel.end()
    assert pool.status("a").state == "download"
    again = Panel(pool, "a")
    await again.waits(steps=2)
    assert loads.count("a") == 1  # two processes of one model would need room for two
    await asyncio.to_thread(former.obey)
    (await loads.next("a")).arrive().finish()
    assert await again.end() == "one end"
    await pool.close()


async def test_cancelling_leaves_a_model_that_is_there_alone() -> None:
    pool, loads = machine(room_for=1.5)
    await make_ready(pool, loads, "a")
    pool.cancel("a")
    pool.cancel("b")
    assert pool.status("a").state == "ready"
    await pool.close()


async def test_an_engine_that_arrives_though_it_was_given_up_is_closed() -> None:
    pool, loads = machine(room_for=1.5)
    pool.preload(["a"])
    load = await loads.next("a")
    pool.cancel("a")
    engine = load.arrive()
    assert await asyncio.to_thread(engine.closing.wait, 20)
    await pool.close()
    assert loads.diary == ["load a", "gone a"]


async def test_a_user_who_goes_away_does_not_end_the_load_for_others() -> None:
    pool, loads = machine(room_for=1.5)
    leaving, staying = Panel(pool, "a"), Panel(pool, "a")
    load = await loads.next("a")
    await leaving.waits()
    await leaving.go_away()
    assert not load.cancelled.is_set()
    load.arrive().finish()
    assert await staying.end() == "one end"
    await pool.close()


async def test_a_model_whose_process_died_is_loaded_anew_by_the_next_request() -> None:
    pool, loads = machine(room_for=1.5)
    panel = Panel(pool, "a")
    engine = (await loads.next("a")).arrive()
    await panel.speaks()
    engine.die(EngineError("A's process ended."))
    with pytest.raises(EngineError, match="A's process ended"):
        await panel.end()
    assert pool.status("a").state == "download"
    again = Panel(pool, "a")
    (await loads.next("a")).arrive().finish()
    assert await again.end() == "one end"
    assert loads.diary == ["load a", "gone a", "load a"]
    await pool.close()


async def test_a_dead_process_takes_nobodys_room() -> None:
    pool, loads = machine(room_for=1.5)
    asking = Panel(pool, "a")
    engine = (await loads.next("a")).arrive()
    await asking.speaks()
    engine.alive = False  # and nobody has told those who ask it yet
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    with pytest.raises(EngineClosedError):
        await asking.end()
    await pool.close()


async def test_what_fails_is_told_to_all_who_wait_kept_in_the_menu_and_tried_again() -> None:
    pool, loads = machine(room_for=1.5)
    panels = [Panel(pool, "a"), Panel(pool, "a")]
    load = await loads.next("a")
    for panel in panels:
        await panel.waits()
    load.fail(DownloadError("org/a is gated: accept its terms."))
    for panel in panels:
        with pytest.raises(DownloadError, match="org/a is gated"):
            await panel.end()
    assert (pool.status("a").state, pool.status("a").detail) == ("failed", "org/a is gated: accept its terms.")
    again = Panel(pool, "a")
    load = await loads.next("a")
    assert pool.status("a").state == "loading"
    load.arrive().finish()
    assert await again.end() == "one end"
    assert pool.status("a").state == "ready"
    await pool.close()


async def test_a_failed_load_gives_its_room_back() -> None:
    pool, loads = machine(room_for=1.5)
    panel = Panel(pool, "a")
    (await loads.next("a")).fail(RuntimeError("a secret"))
    with pytest.raises(RuntimeError, match="a secret"):
        await panel.end()
    assert pool.status("a").detail == "Loading failed unexpectedly: the log has the details."
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    await pool.close()


async def test_close_during_a_load_tells_who_waits_and_waits_for_its_end() -> None:
    pool, loads = machine(room_for=2.5)
    waiting, answering = Panel(pool, "a"), Panel(pool, "b")
    load, engine = await loads.next("a"), (await loads.next("b")).arrive()
    await answering.speaks()
    closing = asyncio.create_task(pool.close())
    with pytest.raises(EngineClosedError, match="shutting down"):
        await waiting.end()
    with pytest.raises(EngineClosedError, match="stopped"):
        await answering.end()
    assert engine.closing.is_set()
    assert not closing.done()
    await asyncio.to_thread(load.obey)
    await closing
    for verb in (lambda: Panel(pool, "a").end(), lambda: pool.encoder("a")):
        with pytest.raises(EngineClosedError, match="shutting down"):
            await verb()
    with pytest.raises(EngineClosedError):
        pool.preload(["a"])

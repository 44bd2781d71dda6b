"""The pool when things happen at once: newcomers, goings, requests and faults, each at the moment the test chooses."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import HeldEngine, HeldLoads, Panel, machine

from playground.engines.pool import EnginePool
from playground.errors import (
    DownloadError,
    EngineBusyError,
    EngineClosedError,
    EngineError,
    LoadCancelledError,
    PlacementError,
)


async def make_ready(pool: EnginePool, loads: HeldLoads, model_id: str) -> HeldEngine:
    """The model is there and has answered once."""
    panel = Panel(pool, model_id)
    engine = (await loads.next(model_id)).arrive()
    await panel.speaks()
    await panel.go_away()
    return engine


async def test_two_new_models_load_at_the_same_time() -> None:
    pool, loads = machine(room_for=2.5)
    panels = [Panel(pool, "a"), Panel(pool, "b")]
    begun = [await loads.next("a"), await loads.next("b")]
    for load in begun:
        load.arrive().finish()
    assert [await panel.end() for panel in panels] == ["one end", "one end"]
    await pool.close()


async def test_many_who_ask_for_one_model_share_its_load() -> None:
    pool, loads = machine(room_for=1.5)
    panels = [Panel(pool, "a") for _ in range(4)]
    load = await loads.next("a")
    for panel in panels:
        await panel.waits()
    load.arrive().finish()
    assert [await panel.end() for panel in panels] == ["one end"] * 4
    assert loads.count("a") == 1
    await pool.close()


async def test_an_idle_model_is_gone_before_the_newcomer_begins() -> None:
    pool, loads = machine(room_for=1.5)
    former = await make_ready(pool, loads, "a")
    former.hold_close()
    panel = Panel(pool, "b")
    assert await asyncio.to_thread(former.closing.wait, 20)
    await panel.waits(steps=2)
    assert loads.count("b") == 0
    former.let_go()
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary == ["load a", "gone a", "load b"]
    await pool.close()


async def test_the_least_recently_used_leaves_and_no_more_than_need_to() -> None:
    pool, loads = machine(room_for=2.5)
    await make_ready(pool, loads, "a")
    await make_ready(pool, loads, "b")
    again = Panel(pool, "a")
    await again.speaks()
    await again.go_away()
    panel = Panel(pool, "c")
    (await loads.next("c")).arrive().finish()
    await panel.end()
    states = [pool.status(model_id).state for model_id in "abc"]
    assert states == ["ready", "download", "ready"]
    await pool.close()


async def test_an_answer_counts_as_use_until_its_end() -> None:
    pool, loads = machine(room_for=2.5)
    long = Panel(pool, "a")
    first = (await loads.next("a")).arrive()
    await long.speaks()
    await make_ready(pool, loads, "b")
    first.finish()
    await long.end()
    panel = Panel(pool, "c")
    (await loads.next("c")).arrive().finish()
    await panel.end()
    assert [pool.status(model_id).state for model_id in "ab"] == ["ready", "download"]
    await pool.close()


async def test_a_model_that_answers_never_leaves_and_the_sentence_names_it() -> None:
    pool, loads = machine(room_for=1.5)
    answering = Panel(pool, "a")
    engine = (await loads.next("a")).arrive()
    await answering.speaks()
    with pytest.raises(PlacementError, match=r"^A is answering and cannot make room for B: wait until it is done, or"):
        await Panel(pool, "b").end()
    assert pool.status("b").state == "download"
    engine.finish()
    assert await answering.end() == "one end"
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    await pool.close()


async def test_a_load_that_someone_waits_for_never_leaves() -> None:
    pool, loads = machine(room_for=2.5)
    waiting, answering = Panel(pool, "a"), Panel(pool, "b")
    load, other = await loads.next("a"), (await loads.next("b")).arrive()
    await answering.speaks()
    for _ in range(2):
        with pytest.raises(PlacementError, match=r"^A is being loaded and cannot|^B is answering and cannot"):
            await Panel(pool, "c").end()
    load.arrive().finish()
    other.finish()
    assert [await waiting.end(), await answering.end()] == ["one end", "one end"]
    await pool.close()


async def test_a_load_that_nobody_waits_for_makes_room() -> None:
    pool, loads = machine(room_for=1.5)
    pool.preload(["a"])
    abandoned = await loads.next("a")
    panel = Panel(pool, "b")
    await asyncio.to_thread(abandoned.obey)
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary == ["load a", "gone a", "load b"]
    await pool.close()


async def test_a_model_asked_for_while_it_leaves_comes_back() -> None:
    pool, loads = machine(room_for=1.5)
    former = await make_ready(pool, loads, "a")
    former.hold_close()
    unloading = asyncio.create_task(pool.unload("a"))
    assert await asyncio.to_thread(former.closing.wait, 20)
    assert pool.status("a").state == "download"
    panel = Panel(pool, "a")
    await panel.waits()
    assert pool.status("a").state == "loading"
    assert not unloading.done()
    former.let_go()
    await unloading
    (await loads.next("a")).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary == ["load a", "gone a", "load a"]
    await pool.close()


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

"""The pool when models are asked for at once: shared loads, newcomers and those that leave for them."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import machine
from pool_panel import Panel, make_ready

from playground.errors import PlacementError


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

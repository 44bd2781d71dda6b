"""Room for views: how many there may be, who leaves for them, and for whom they leave."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import HeldEngine, machine, views
from pool_panel import Panel, make_ready, make_view_ready

from playground.engines.pool import EnginePool
from playground.errors import EngineBusyError, PlacementError
from playground.types import DeviceUse

USE = DeviceUse("cpu", 10**10, 10**9, 1000, 1000, 0)


async def use(pool: EnginePool, base: HeldEngine, adapter: str) -> HeldEngine:
    """As `make_view_ready`, but it reports memory, so that `views` names it."""
    panel = Panel(pool, base.model_id, adapter)
    engine = (await base.next_view()).arrive(USE)
    await panel.speaks()
    await panel.go_away()
    return engine


async def use_again(pool: EnginePool, model_id: str, adapter: str = "") -> None:
    panel = Panel(pool, model_id, adapter)
    await panel.speaks()
    await panel.go_away()


async def test_beyond_the_limit_the_least_recently_used_idle_view_leaves() -> None:
    pool, loads = machine(room_for=9, views=2)
    base = await make_ready(pool, loads, "a")
    for adapter in ("formal", "casual"):
        await use(pool, base, adapter)
    await use_again(pool, "a", "formal")
    await use(pool, base, "poetic")
    assert views(pool) == ["formal", "poetic"]
    other = await make_ready(pool, loads, "b")  # each model has so many
    await use(pool, other, "formal")
    await use(pool, other, "casual")
    assert views(pool) == ["casual", "formal", "formal", "poetic"]
    await pool.close()


async def test_beyond_the_limit_a_view_that_answers_stays_and_the_sentence_says_what_to_do() -> None:
    pool, loads = machine(room_for=9, views=2)
    base = await make_ready(pool, loads, "a")
    panels = [Panel(pool, "a", "formal"), Panel(pool, "a", "casual")]
    engines = [(await base.next_view()).arrive() for _ in panels]
    for panel in panels:
        await panel.speaks()
    with pytest.raises(
        EngineBusyError, match=r"^A is answering with 2 adapters, and no more can be used at a time: wait"
    ):
        await Panel(pool, "a", "poetic").end()
    for engine, panel in zip(engines, panels, strict=True):
        engine.finish()
        await panel.end()
    await use(pool, base, "poetic")
    assert views(pool) == ["poetic"]
    await pool.close()


async def test_an_idle_view_makes_room_for_another_and_is_gone_before_that_is_attached() -> None:
    pool, loads = machine(room_for=1.6)
    base = await make_ready(pool, loads, "a")
    former = await make_view_ready(pool, base, "formal")
    former.hold_close()
    panel = Panel(pool, "a", "casual")
    assert await asyncio.to_thread(former.closing.wait, 20)
    await panel.waits(steps=2)
    assert loads.diary == ["load a", "attach a+formal"]
    former.let_go()
    (await base.next_view()).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary == ["load a", "attach a+formal", "gone a+formal", "attach a+casual"]
    await pool.close()


async def test_the_least_recently_used_of_views_and_models_leaves_for_a_view() -> None:
    pool, loads = machine(room_for=3.1)
    base = await make_ready(pool, loads, "a")
    await use(pool, base, "formal")
    other = await make_ready(pool, loads, "b")
    await use(pool, other, "formal")
    await use_again(pool, "a", "formal")
    await use(pool, base, "casual")  # b's view was used before b
    assert views(pool) == ["casual", "formal"]
    assert [pool.status(model_id).state for model_id in "ab"] == ["ready", "ready"]
    assert loads.diary[-2:] == ["gone b+formal", "attach a+casual"]
    await pool.close()


async def test_an_idle_model_leaves_for_a_view_when_its_views_are_not_enough() -> None:
    pool, loads = machine(room_for=2.6)
    other = await make_ready(pool, loads, "b")
    await use(pool, other, "formal")
    base = await make_ready(pool, loads, "a")
    panels = [Panel(pool, "a", "formal")]
    (await base.next_view()).arrive(USE)
    await panels[0].speaks()
    assert loads.diary[-2:] == ["gone b+formal", "attach a+formal"]
    panels.append(Panel(pool, "a", "casual"))
    (await base.next_view()).arrive(USE)
    await panels[1].speaks()
    assert loads.diary[-2:] == ["gone b", "attach a+casual"]
    for panel in panels:
        await panel.go_away()
    await pool.close()


async def test_a_base_never_leaves_for_its_own_view() -> None:
    pool, loads = machine(room_for=1.2)
    await make_ready(pool, loads, "a")
    with pytest.raises(PlacementError) as told:
        await Panel(pool, "a", "formal").end()
    assert str(told.value) == (
        "A with formal has no room beside its base: 0.4 GB on cpu are missing. "
        "Use A without an adapter, or a device with more memory."
    )
    assert pool.status("a").state == "ready"
    await pool.unload("a")
    await pool.close()


async def test_a_view_that_has_no_room_does_not_bring_its_base() -> None:
    pool, loads = machine(room_for=1.2)
    await make_ready(pool, loads, "b")
    with pytest.raises(PlacementError, match="A with formal has no room beside its base"):
        await Panel(pool, "a", "formal").end()
    assert [pool.status(model_id).state for model_id in "ab"] == ["download", "ready"]
    assert loads.diary == ["load b"]
    await pool.close()


async def test_who_answers_is_in_a_views_way_and_is_named() -> None:
    pool, loads = machine(room_for=2.2)
    base = await make_ready(pool, loads, "a")
    answering = Panel(pool, "b")
    engine = (await loads.next("b")).arrive()
    await answering.speaks()
    with pytest.raises(PlacementError) as told:
        await Panel(pool, "a", "formal").end()
    assert str(told.value) == (
        "A with formal has no room beside its base: 0.4 GB on cpu are missing. "
        "B is answering and cannot make room for A with formal: wait until it is done, or stop it."
    )
    engine.finish()
    await answering.end()
    await use(pool, base, "formal")
    await pool.close()


async def test_views_leave_for_a_newcomer_before_models_do() -> None:
    pool, loads = machine(room_for=2.6)
    base = await make_ready(pool, loads, "a")
    await use(pool, base, "formal")
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    assert views(pool) == ["formal"]  # there was room
    panel = Panel(pool, "c")
    (await loads.next("c")).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary[-1] == "load c"
    assert sorted(loads.diary[-3:-1]) == ["gone a", "gone a+formal"]
    await pool.close()


async def test_only_the_view_leaves_where_that_is_enough() -> None:
    pool, loads = machine(room_for=2.3)
    base = await make_ready(pool, loads, "a")
    await use(pool, base, "formal")
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    assert loads.diary == ["load a", "attach a+formal", "gone a+formal", "load b"]
    await pool.close()


async def test_a_working_view_stays_and_so_does_its_base_which_is_named() -> None:
    pool, loads = machine(room_for=1.6)
    base = await make_ready(pool, loads, "a")
    answering = Panel(pool, "a", "formal")
    view = (await base.next_view()).arrive()
    await answering.speaks()
    with pytest.raises(PlacementError, match=r"^A is answering and cannot make room for B: wait until it is done"):
        await Panel(pool, "b").end()
    view.finish()
    await answering.end()
    panel = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()
    assert await panel.end() == "one end"
    assert sorted(loads.diary[2:4]) == ["gone a", "gone a+formal"]
    await pool.close()


async def test_preloaded_models_leave_for_nobodys_view_but_idle_views_leave_for_them() -> None:
    pool, loads = machine(room_for=2.3)
    base = await make_ready(pool, loads, "a")
    await use(pool, base, "formal")
    pool.preload(["a", "b"])
    (await loads.next("b")).arrive()
    assert loads.diary == ["load a", "attach a+formal", "gone a+formal", "load b"]
    assert pool.status("a").state == "ready"
    await pool.close()


async def test_a_view_that_leaves_while_its_base_loads_holds_nobody_up() -> None:
    pool, loads = machine(room_for=2.3)
    panel = Panel(pool, "a", "formal")
    load = await loads.next("a")
    await panel.waits()
    await panel.go_away()
    newcomer = Panel(pool, "b")
    (await loads.next("b")).arrive().finish()  # the view's room was all that it needed
    assert await newcomer.end() == "one end"
    assert pool.status("a").state == "loading"
    load.arrive()
    await pool.close()
    assert "attach a+formal" not in loads.diary

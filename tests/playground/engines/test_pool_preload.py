"""Preloading, what the menus say, and what the devices hold: the pool over engines whose arrival the test decides."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fakes import spec
from held_engines import WHOLE, HeldLoads, device, machine
from pool_panel import Panel

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.errors import PlacementError, UnknownModelError
from playground.placement.plan import Device
from playground.types import DeviceUse, EngineLabel, LoadProgress


async def test_preloaded_models_are_placed_together_and_load_at_the_same_time() -> None:
    pool, loads = machine(room_for=2.5)
    pool.preload(["a", "b", "a"])
    for load in (await loads.next("a"), await loads.next("b")):
        load.arrive()
    assert sorted(loads.diary) == ["load a", "load b"]
    await pool.close()


async def test_where_they_do_not_fit_together_each_is_tried_and_what_fails_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool, loads = machine(room_for=1.5)
    pool.preload(["a", "b"])
    (await loads.next("a")).arrive()
    status = pool.status("b")
    assert status.state == "failed"
    assert status.detail.startswith("A is being loaded and cannot make room for B")
    assert status.detail in caplog.text
    panel = Panel(pool, "b")  # a request may send an idle model away, where a preload may not send its fellow
    (await loads.next("b")).arrive().finish()
    await panel.end()
    assert [pool.status(model_id).state for model_id in "ab"] == ["download", "ready"]
    await pool.close()


async def test_what_fits_nowhere_does_not_keep_the_others_from_loading() -> None:
    loads = HeldLoads()
    giant = spec("giant").model_copy(update={"parameters": 10**12})
    pool = EnginePool(Registry([giant, spec("a")]), [device(1.5)], WHOLE, loads)
    pool.preload(["giant", "a"])
    (await loads.next("a")).arrive()
    assert pool.status("giant").state == "too_large"
    with pytest.raises(PlacementError, match="GIANT does not fit"):
        await Panel(pool, "giant").end()
    await pool.close()


async def test_a_later_preload_sends_idle_models_away() -> None:
    pool, loads = machine(room_for=2.5)
    pool.preload(["a"])
    (await loads.next("a")).arrive()
    panel = Panel(pool, "a")
    await panel.speaks()
    await panel.go_away()
    pool.preload(["b", "c"])
    for model_id in "bc":
        (await loads.next(model_id)).arrive()
    assert loads.diary[:2] == ["load a", "gone a"]
    await pool.close()


async def test_an_unknown_model_is_named() -> None:
    pool, _ = machine(room_for=1.5)
    for verb in (pool.status, pool.cancel, lambda model_id: pool.preload([model_id])):
        with pytest.raises(UnknownModelError):
            verb("aa")
    with pytest.raises(UnknownModelError):
        await pool.unload("aa")
    await pool.close()


async def test_the_menu_follows_a_load_and_says_where_it_goes() -> None:
    pool, loads = machine(room_for=1.5)
    assert (pool.status("a").state, pool.status("a").place) == ("download", "")
    pool.preload(["a"])
    load = await loads.next("a")
    load.report(LoadProgress("weights", 3, 8))
    status = pool.status("a")
    assert (status.state, status.progress) == ("loading", LoadProgress("weights", 3, 8))
    assert status.place == load.placement.reason
    assert status.place.startswith("A: whole on the CPU")
    load.arrive()
    panel = Panel(pool, "a")
    await panel.speaks()
    assert (pool.status("a").state, pool.status("a").progress) == ("ready", None)
    assert pool.status("a").place == status.place
    await panel.go_away()
    await pool.close()
    assert pool.status("a").place == ""


async def test_progress_is_logged_in_bytes_at_every_stage_but_not_at_every_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "playground.engines.pooling.loading")
    pool, loads = machine(room_for=2.5)
    pool.preload(["a", "b"])
    begun = [await loads.next("a"), await loads.next("b")]
    for load in begun:
        for done in range(0, 2000, 500):
            load.report(LoadProgress("weights", done, 2000))
        load.report(LoadProgress("start"))
    for model_id in "ab":
        lines = [message for message in caplog.messages if message.startswith(f"{model_id}: ")]
        assert lines == [f"{model_id}: weights, 0 of 2,000 bytes (0%)", f"{model_id}: start"]
    closing = asyncio.create_task(pool.close())
    for load in begun:
        await asyncio.to_thread(load.obey)
    await closing


async def test_the_devices_tell_who_stands_on_them_and_what_is_free() -> None:
    loads = HeldLoads()
    devices = [Device("cuda:0", "cuda", 48 * 10**9, 46 * 10**9), Device("cpu", "cpu", 64 * 10**9, 60 * 10**9)]
    pool = EnginePool(Registry([spec("a"), spec("b")]), devices, WHOLE, loads)
    assert [(report.device, report.free_bytes, report.engines) for report in pool.memory()] == [
        ("cuda:0", 46 * 10**9, ()),
        ("cpu", 60 * 10**9, ()),
    ]
    pool.preload(["a", "b"])
    uses = {
        "a": DeviceUse("cuda:0", 48 * 10**9, 40 * 10**9, 5 * 10**9, 10**9, 0),
        "b": DeviceUse("cuda:0", 48 * 10**9, 39 * 10**9, 10**9, 10**8, 10**7),
    }
    for model_id in "ab":
        (await loads.next(model_id)).arrive(uses[model_id])
    panels = [Panel(pool, model_id) for model_id in "ab"]
    for panel in panels:
        await panel.speaks()
    gpu, cpu = pool.memory()
    assert gpu.engines == ((EngineLabel("a"), uses["a"]), (EngineLabel("b"), uses["b"]))
    assert (gpu.total_bytes, gpu.free_bytes) == (48 * 10**9, 39 * 10**9)
    assert (cpu.free_bytes, cpu.engines) == (60 * 10**9, ())
    for panel in panels:
        await panel.go_away()
    await pool.unload("b")
    assert pool.memory()[0].free_bytes == 40 * 10**9
    await pool.close()
    assert pool.memory()[0].engines == ()

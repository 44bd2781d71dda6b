"""The pool and adapters: views come after their base, share it with everyone, and leave at the latest when it does."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest
from adapter_shelf import Shelf, checked
from fakes import spec
from held_engines import WHOLE, HeldLoads, ask, device, machine, views
from pool_panel import Panel, make_ready, make_view_ready

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.engines.pooling import reading
from playground.errors import (
    AdapterError,
)
from playground.types import AdapterUse, DeviceUse, EngineLabel, GenerationChunk, LoadProgress

USE = DeviceUse("cpu", 10**10, 10**9, 1000, 1000, 0)


async def test_the_base_loads_then_the_view_is_attached_then_it_answers() -> None:
    pool, loads = machine(room_for=3)
    panel = Panel(pool, "a", "formal", scale=0.5)
    load = await loads.next("a")
    load.report(LoadProgress("weights", 1, 2))
    await panel.reaches("weights")
    base = load.arrive()
    attach = await base.next_view()
    assert (attach.tag, attach.scale, attach.kv_tokens) == ("a+formal", 0.5, 4000)
    await panel.reaches("adapter")
    attach.arrive().finish()
    assert await panel.end() == "one end"
    stages = [event.stage for event in panel.events if isinstance(event, LoadProgress)]
    assert stages == sorted(stages, key=["waiting", "weights", "adapter"].index)
    assert loads.diary == ["load a", "attach a+formal"]
    await pool.close()


async def test_a_view_that_is_there_answers_without_progress_and_is_shared() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    view = await make_view_ready(pool, base, "formal")
    panels = [Panel(pool, "a", "formal"), Panel(pool, "a", "formal")]
    for panel in panels:
        await panel.speaks()
        assert isinstance(panel.events[0], GenerationChunk)
    view.finish()
    assert [await panel.end() for panel in panels] == ["one end"] * 2
    assert loads.diary == ["load a", "attach a+formal"]
    await pool.close()


async def test_an_adapter_that_is_known_waits_for_no_inspection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "INSPECTORS", 1)
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    shelf, busy, go_on = cast(Shelf, pool._reading._adapters), threading.Event(), threading.Event()
    known = await pool.adapter("a", "formal")
    monkeypatch.setattr(shelf, "remembered", lambda spec, name, revision: known)
    monkeypatch.setattr(shelf, "check", lambda *_: (busy.set(), go_on.wait(), known)[-1])
    slow = asyncio.create_task(pool.adapter("a", "owner/slow"))
    await asyncio.to_thread(busy.wait)
    panel = Panel(pool, "a", "formal")
    (await base.next_view()).arrive().finish()
    assert await panel.end() == "one end"
    go_on.set()
    assert await slow is known
    await pool.close()


async def test_every_adapter_and_scale_has_an_engine_of_its_own_beside_the_plain_model() -> None:
    pool, loads = machine(room_for=5)
    base = await make_ready(pool, loads, "a")
    panels = [Panel(pool, "a")]
    for adapter, scale in (("formal", 1.0), ("formal", 0.5), ("casual", 1.0)):
        panels.append(Panel(pool, "a", adapter, scale))
        (await base.next_view()).arrive().finish()
    base.finish()
    assert [await panel.end() for panel in panels] == ["one end"] * 4
    assert loads.diary == ["load a", "attach a+formal", "attach a+formal", "attach a+casual"]
    await pool.close()


async def test_abort_and_the_memory_reach_every_engine() -> None:
    pool, loads = machine(room_for=4)
    panel = Panel(pool, "a", "formal", 0.5)
    base = (await loads.next("a")).arrive(USE)
    view = (await base.next_view()).arrive(USE)
    await panel.speaks()
    await pool.abort(panel.request.request_id)
    assert base.aborted == view.aborted == [panel.request.request_id]
    used = EngineLabel("a", AdapterUse(id="formal", revision="r1", scale=0.5))
    assert pool.memory()[0].engines == ((EngineLabel("a"), USE), (used, USE))
    assert views(pool) == ["formal"]
    await panel.go_away()
    await pool.close()


async def test_adapters_are_the_librarys_and_checked_before_anything_loads() -> None:
    pool, loads = machine(room_for=3)
    shelf = pool._reading._adapters
    assert [choice.about for choice in pool.adapters("a")] == ["of a"]
    found = await pool.adapter("a", "formal")
    assert found == checked("formal")
    panel = Panel(pool, "a", "formal")
    load = await loads.next("a")
    assert shelf.checks == [("a", "formal", ""), ("a", "formal", "r1")]  # type: ignore[union-attr]
    shelf.refused["pickled"] = AdapterError("It holds a pickle.")  # type: ignore[union-attr]
    for verb in (lambda: pool.adapter("b", "pickled"), lambda: Panel(pool, "b", "pickled").end()):
        with pytest.raises(AdapterError, match="It holds a pickle"):
            await verb()
    assert loads.count("b") == 0
    await panel.go_away()
    closing = asyncio.create_task(pool.close())
    await asyncio.to_thread(load.obey)
    await closing


async def test_a_pool_without_a_library_offers_no_adapters_and_refuses_them() -> None:
    pool = EnginePool(Registry([spec("a")]), [device(3)], WHOLE, HeldLoads())
    assert pool.adapters("a") == ()
    with pytest.raises(AdapterError, match="started without adapters"):
        await pool.adapter("a", "formal")
    with pytest.raises(AdapterError, match="started without adapters"):
        async for _ in pool.stream(ask("a", "formal")):
            pass
    await pool.close()

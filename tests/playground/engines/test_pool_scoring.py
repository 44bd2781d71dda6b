"""The pool asks the engine that is there how probable an answer was, keeps it there meanwhile, and loads none."""

from __future__ import annotations

import asyncio

import pytest
from held_engines import ask, machine
from pool_panel import Panel, make_ready, make_view_ready

from playground.engines.pool import EnginePool
from playground.errors import EngineBusyError, EngineError, UnknownModelError


async def begun(pool: EnginePool, *request: str) -> asyncio.Task[tuple[object, ...]]:
    task = asyncio.create_task(pool.score(ask(*request), [1, 2]))
    await asyncio.sleep(0)
    return task


async def test_the_engine_that_is_there_is_asked_and_stays_meanwhile() -> None:
    pool, loads = machine(room_for=1.5)
    engine = await make_ready(pool, loads, "a")
    scoring = await begun(pool, "a")
    with pytest.raises(EngineBusyError, match="A is answering"):
        await pool.unload("a")
    engine.finish()
    assert len(await scoring) == 2
    assert engine.scored == [(1, 2)]
    await pool.unload("a")
    assert loads.diary == ["load a", "gone a"]
    await pool.close()


async def test_the_engine_of_an_adapter_is_asked_at_its_scale() -> None:
    pool, loads = machine(room_for=3)
    base = await make_ready(pool, loads, "a")
    view = await make_view_ready(pool, base, "formal")
    scoring = await begun(pool, "a", "formal")
    with pytest.raises(EngineBusyError):
        await pool.unload("a")
    view.finish()
    assert len(await scoring) == 2
    assert (base.scored, view.scored) == ([], [(1, 2)])
    with pytest.raises(EngineError, match="A with formal has been unloaded since this answer"):
        await pool.score(ask("a", "formal", 0.5), [1, 2])
    await pool.close()


async def test_nothing_is_loaded() -> None:
    pool, loads = machine(room_for=3)
    with pytest.raises(EngineError, match="A has been unloaded since this answer: send again"):
        await pool.score(ask("a"), [1])
    waiting = Panel(pool, "a")
    load = await loads.next("a")
    with pytest.raises(EngineError, match="has been unloaded"):
        await pool.score(ask("a"), [1])
    load.arrive().finish()
    await waiting.end()
    assert len(await pool.score(ask("a"), [1])) == 1
    await pool.unload("a")
    with pytest.raises(EngineError, match="has been unloaded"):
        await pool.score(ask("a"), [1])
    assert loads.count("a") == 1
    with pytest.raises(UnknownModelError):
        await pool.score(ask("nobody"), [1])
    await pool.close()


async def test_who_gives_up_lets_the_model_go() -> None:
    pool, loads = machine(room_for=1.5)
    await make_ready(pool, loads, "a")
    scoring = await begun(pool, "a")
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    await pool.unload("a")
    await pool.close()


async def test_an_engine_that_ended_by_itself_is_not_asked() -> None:
    pool, loads = machine(room_for=1.5)
    engine = await make_ready(pool, loads, "a")
    engine.die(EngineError("gone"))
    with pytest.raises(EngineError, match="has been unloaded"):
        await pool.score(ask("a"), [1])
    assert engine.scored == []
    await pool.close()

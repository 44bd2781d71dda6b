"""What goes wrong between the app and a process that attaches: errors, ends in the middle, and who is told what."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_room import answer, ask, load_scripted, process_of, started, tiny_spec, until

from playground.adapters.facts import AdapterFacts, CheckedAdapter
from playground.engines.process import ProcessEngine
from playground.errors import AdapterError, EngineClosedError, EngineError, OutOfMemoryError

FACTS = AdapterFacts(1, 1, False, ("layer",), {}, {}, 1, 1, "", "", "digest")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with started(tiny_spec(tmp_path), load_scripted) as made:
        yield made


def adapter(name: str, folder: Path) -> CheckedAdapter:
    return CheckedAdapter(name, name.title(), "main", "one", folder, FACTS)


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("full", OutOfMemoryError, "The device is full: close other adapters."),
        ("misfit", AdapterError, "It does not fit."),
        ("broken", EngineError, r"Tiny one failed: no such thing\. Try again; the log has the details\."),
    ],
)
async def test_what_attaching_raises_arrives_as_what_it_is(
    engine: ProcessEngine, tmp_path: Path, name: str, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        await asyncio.to_thread(engine.attach, adapter(name, tmp_path), 1.0, 64)
    assert not engine._attached
    assert await answer(engine, ask()) == "Well, yes."
    if name == "broken":
        assert "LookupError: no such thing" in (tmp_path / "one" / "log").read_text()


async def test_answers_go_on_while_an_adapter_is_attached(engine: ProcessEngine, tmp_path: Path) -> None:
    slow = [asyncio.create_task(asyncio.to_thread(engine.attach, adapter("slow", tmp_path), 1.0, 64))]
    await until((tmp_path / "attaching").exists)
    view = await asyncio.to_thread(engine.attach, adapter("fine", tmp_path), 1.0, 64)
    assert [await answer(one, ask()) for one in (engine, view)] == ["Well, yes."] * 2
    await view.close()
    assert not slow[0].done()
    await engine.close()
    with pytest.raises(EngineClosedError, match="Tiny one was stopped"):
        await slow[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_process_that_dies_while_it_attaches_is_a_sentence(
    engine: ProcessEngine, tmp_path: Path, number: signal.Signals
) -> None:
    attaching = asyncio.create_task(asyncio.to_thread(engine.attach, adapter("slow", tmp_path), 1.0, 64))
    await until((tmp_path / "attaching").exists)
    os.kill(process_of(engine).pid, number)
    with pytest.raises(EngineError, match=r"Tiny one is gone: its process ended .*Send again"):
        await attaching
    with pytest.raises(EngineError, match="is gone"):
        await asyncio.to_thread(engine.attach, adapter("fine", tmp_path), 1.0, 64)


async def test_a_base_closes_in_time_whatever_it_attaches(engine: ProcessEngine, tmp_path: Path) -> None:
    process = process_of(engine)
    attaching = asyncio.create_task(asyncio.to_thread(engine.attach, adapter("slow", tmp_path), 1.0, 64))
    await until((tmp_path / "attaching").exists)
    async with asyncio.timeout(10):
        await engine.close()
    assert not process.is_running()
    with pytest.raises(EngineClosedError):
        await attaching
    with pytest.raises(EngineClosedError):
        await asyncio.to_thread(engine.attach, adapter("fine", tmp_path), 1.0, 64)


async def test_closing_a_view_twice_at_once_waits_for_its_end(engine: ProcessEngine, tmp_path: Path) -> None:
    view = await asyncio.to_thread(engine.attach, adapter("fine", tmp_path), 1.0, 64)
    assert view.model_id == "one"
    await asyncio.gather(view.close(), view.close())
    assert not engine._attached
    await view.close()
    assert engine.alive

"""What goes wrong in an engine's process arrives as a sentence, and what ends one ends nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from process_room import answer, ask, chunks_of, load_scripted, on_the_cpu, process_of, started, tiny_spec, until

from model_registry.spec import ModelSpec
from playground.engines.process import ProcessEngine
from playground.errors import ContextFullError, EngineError, OutOfMemoryError

ROOT = Path(__file__).parents[3]
GONE_S = 30.0
"""In which a process must be gone whose parent was killed."""


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return tiny_spec(tmp_path, context=8192)


@pytest.fixture
async def scripted(spec: ModelSpec) -> AsyncIterator[ProcessEngine]:
    async with started(spec, load_scripted) as made:
        yield made


async def test_errors_arrive_as_what_they_are(scripted: ProcessEngine) -> None:
    with pytest.raises(ContextFullError, match="7 tokens too long") as too_long:
        await answer(scripted, ask("long"))
    assert too_long.value.excess == 7
    with pytest.raises(OutOfMemoryError, match="The device is full"):
        await answer(scripted, ask("full"))
    assert await answer(scripted, ask("else")) == "Well, yes."


async def test_an_error_comes_behind_what_was_said(scripted: ProcessEngine) -> None:
    stream = scripted.stream(ask("full"))
    assert (await anext(stream)).delta == "Well, "
    with pytest.raises(OutOfMemoryError):
        await anext(stream)


async def test_an_unforeseen_error_is_a_sentence_and_its_traceback_is_in_the_log(
    scripted: ProcessEngine, spec: ModelSpec
) -> None:
    with pytest.raises(EngineError) as error:
        await answer(scripted, ask("broken"))
    assert str(error.value) == "Tiny one failed: no such thing. Try again; the log has the details."
    assert spec.weights.path is not None
    log = (spec.weights.path / "log").read_text()
    assert "Traceback" in log
    assert "LookupError: no such thing" in log
    assert await answer(scripted, ask("else")) == "Well, yes."


async def test_a_prompt_beyond_the_context_says_by_how_much(tmp_path: Path) -> None:
    short = tiny_spec(tmp_path, "short", context=64)
    async with started(short) as engine:
        with pytest.raises(ContextFullError) as error:
            await answer(engine, ask("x" * 100))
        assert error.value.excess == 100 + len("u: ") + 1 - 64


async def test_a_killed_process_is_a_sentence_to_all_its_streams_and_nothing_to_others(
    spec: ModelSpec, tmp_path: Path
) -> None:
    other = tiny_spec(tmp_path, "other", context=8192)
    async with (
        started(spec, placement=on_the_cpu(spec, kv_tokens=8192)) as engine,
        started(other, placement=on_the_cpu(other, kv_tokens=8192)) as neighbour,
    ):
        streams = [engine.stream(ask(f"{number}", max_new_tokens=8000)) for number in range(2)]
        async with aclosing(neighbour.stream(ask(max_new_tokens=8000))) as undisturbed:
            for stream in (*streams, undisturbed):
                await anext(stream)
            os.kill(process_of(engine).pid, signal.SIGKILL)
            for stream in streams:
                with pytest.raises(EngineError, match=r"killed by signal 9, perhaps for lack of memory.*Send again"):
                    async with asyncio.timeout(60):
                        [chunk async for chunk in stream]
            assert not engine.alive
            assert engine.memory() == ()
            assert neighbour.alive
            for _ in range(10):
                assert (await anext(undisturbed)).finish_reason is None
        with pytest.raises(EngineError, match="Send again: the model is loaded anew"):
            await chunks_of(engine, ask())
        assert await answer(neighbour, ask())


async def test_a_killed_process_can_be_closed_and_replaced(spec: ModelSpec) -> None:
    async with started(spec) as engine:
        expected = await answer(engine, ask())
        os.kill(process_of(engine).pid, signal.SIGKILL)
        await until(lambda: not engine.alive)
    async with started(spec) as again:
        assert await answer(again, ask()) == expected


async def test_ctrl_c_is_the_apps_affair(spec: ModelSpec) -> None:
    async with started(spec) as engine:
        os.kill(process_of(engine).pid, signal.SIGINT)
        assert await answer(engine, ask())


async def test_a_process_that_does_not_end_is_ended(spec: ModelSpec) -> None:
    async with started(spec, load_scripted) as engine:
        process = process_of(engine)
        process.suspend()  # it neither hears nor dies by itself
        await engine.close()
        assert not process.is_running()


async def test_a_question_to_a_process_that_does_not_listen_holds_nobody_up(spec: ModelSpec) -> None:
    async with started(spec, load_scripted) as engine:
        process_of(engine).suspend()
        asked = [asyncio.create_task(answer(engine, ask("x" * 1_000_000))) for _ in range(2)]
        await asyncio.sleep(0)
        process_of(engine).resume()
        assert await asyncio.gather(*asked) == ["Well, yes."] * 2


APP = f"""
import sys, threading
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]

def start(load, told):
    spec = process_room.Registry.load(Path(sys.argv[1])).get("one")
    process.start_engine(spec, process_room.on_the_cpu(spec), told, threading.Event(), load=load)

if __name__ == "__main__":
    import process_room
    from playground.engines import process
    start(process_room.load_scripted, print)
    told = lambda progress: print("both are there", flush=True)
    start(process_room.load_forever, told)
"""


LISTING = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]

def list_slowly():
    print("both are there", flush=True)
    time.sleep(2)

if __name__ == "__main__":
    from playground.engines.processes import child_process
    child_process.preloaded = lambda: []  # who ends with whom does not hang on what they have imported
    child_process.in_child(list_slowly)
"""


@pytest.mark.parametrize(
    ("program", "family_size", "number"),
    [(APP, 4, signal.SIGKILL), (LISTING, 3, signal.SIGTERM)],
    ids=["engines", "devices"],
)
def test_no_process_outlives_its_app(tmp_path: Path, program: str, family_size: int, number: int) -> None:
    """A fork server and a resource tracker; two engines, one that serves and one that loads, or a question."""
    tiny_spec(tmp_path)
    script = tmp_path / "app.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(tmp_path / "one.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as app:
        assert app.stdout is not None
        assert app.stdout.readline().strip() == "both are there"
        family = psutil.Process(app.pid).children(recursive=True)
        assert len(family) >= family_size
        app.send_signal(number)
        deadline = time.monotonic() + GONE_S
        while left := [process for process in family if not has_ended(process)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """In a container there may be nobody to bury an orphan, which has ended all the same."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

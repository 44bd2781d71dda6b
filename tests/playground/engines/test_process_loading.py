"""Engines come into processes of their own: at the same time, each in its precision, and ended at any moment."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from process_room import (
    answer,
    ask,
    chunks_of,
    engine_processes,
    load_and_count_threads,
    load_forever,
    load_not_known,
    load_refused,
    load_scripted,
    load_when_allowed,
    on_the_cpu,
    process_of,
    start,
    started,
    tiny_spec,
    until,
)

from model_registry.spec import Dtype, ModelSpec
from playground.engines.checkpoints.loader import load_engine
from playground.engines.processes import worker
from playground.engines.processes.child_process import in_child
from playground.errors import CheckpointError, LoadCancelledError, LoadError, PlaygroundError
from playground.types import LoadProgress

ROOT = Path(__file__).parents[3]
CANCEL_S = 10.0
"""Far beyond what ending a process takes; these loads never end by themselves."""


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return tiny_spec(tmp_path)


async def test_loading_tells_how_far_it_is(spec: ModelSpec) -> None:
    told: list[LoadProgress] = []
    async with started(spec, report=told.append):
        stages = list(dict.fromkeys(progress.stage for progress in told))
        assert stages[-2:] == ["weights", "start"]


async def test_two_models_load_at_the_same_time(tmp_path: Path) -> None:
    both: dict[str, list[LoadProgress]] = {"one": [], "two": []}
    starting = [
        asyncio.create_task(start(tiny_spec(tmp_path, name), load_when_allowed, told.append))
        for name, told in both.items()
    ]
    await until(lambda: all(both.values()))
    assert not any(task.done() for task in starting)
    (tmp_path / "go").touch()
    for engine in await asyncio.gather(*starting):
        assert await answer(engine, ask()) == "Well, yes."
        await engine.close()


async def test_models_that_load_together_have_each_its_own_precision(spec: ModelSpec, tmp_path: Path) -> None:
    dtypes: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")
    specs = [spec, tiny_spec(tmp_path, "two", seed=1), tiny_spec(tmp_path, "three", seed=2)]
    places = [on_the_cpu(spec, dtype) for spec, dtype in zip(specs, dtypes, strict=True)]
    engines = await asyncio.gather(*(start(spec, placement=place) for spec, place in zip(specs, places, strict=True)))
    for spec_, place, engine in zip(specs, places, engines, strict=True):
        here = load_engine(spec_, place, lambda _: None)
        assert await answer(engine, ask(max_new_tokens=60)) == await answer(here, ask(max_new_tokens=60))
        await here.close()
        await until(lambda engine=engine: bool(engine.memory()))
        width = getattr(torch, place.dtype).itemsize
        assert engine.memory()[0].weight_bytes == pytest.approx(width * spec_.parameters, rel=0.1)
        await engine.close()


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_load_is_given_up_at_once(tmp_path: Path, deaf: bool) -> None:
    spec = tiny_spec(tmp_path)
    weights = tmp_path / "one" / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)  # reading it waits for someone to write to it
    told: list[LoadProgress] = []
    cancelled = threading.Event()
    load = load_forever if deaf else worker.load
    loading = asyncio.create_task(start(spec, load, told.append, cancelled=cancelled))
    await until(lambda: bool(told))
    await asyncio.sleep(0.3)
    (pid,) = engine_processes()
    cancelled.set()
    began = time.monotonic()
    with pytest.raises(LoadCancelledError, match="Loading Tiny one was given up"):
        await loading
    assert time.monotonic() - began < CANCEL_S
    assert not psutil.pid_exists(pid)
    assert engine_processes() == []


async def test_a_load_that_was_given_up_before_it_began_leaves_nothing(spec: ModelSpec) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(LoadCancelledError):
        await start(spec, load_forever, cancelled=cancelled)
    await until(lambda: engine_processes() == [])


async def test_what_loading_raises_arrives_as_what_it_is(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    (tmp_path / "one" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="Tiny one"):
        await start(spec)
    with pytest.raises(PlaygroundError, match="Not today"):
        await start(spec, load_refused)
    assert engine_processes() == []


async def test_what_nobody_foresaw_is_a_sentence_and_its_traceback_is_in_the_log(spec: ModelSpec) -> None:
    with pytest.raises(LoadError, match=r"Tiny one could not be loaded: by nothing\. The log has the details"):
        await start(spec, load_not_known)
    assert spec.weights.path is not None
    assert "ZeroDivisionError" in (spec.weights.path / "log").read_text()


async def test_a_process_that_dies_while_it_loads_is_a_sentence(spec: ModelSpec) -> None:
    told: list[LoadProgress] = []
    loading = asyncio.create_task(start(spec, load_forever, told.append))
    await until(lambda: bool(told))
    (pid,) = engine_processes()
    psutil.Process(pid).kill()
    with pytest.raises(LoadError, match=r"Tiny one could not be loaded: its process ended \(killed by signal 9"):
        await loading


async def test_the_memory_of_a_model_is_its_process_and_goes_with_it(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, layers=4, hidden=768, heads=12)
    weights, app = 4 * spec.parameters, psutil.Process()
    assert weights > 100e6
    before = app.memory_info().rss
    async with started(spec, load_scripted) as empty:
        bare = process_of(empty).memory_info().rss
    async with started(spec) as engine:
        assert await chunks_of(engine, ask())
        process = process_of(engine)
        assert process.memory_info().rss - bare > weights / 2
        assert app.memory_info().rss - before < weights / 4
    assert not process.is_running()
    assert app.memory_info().rss - before < weights / 4


async def test_an_engine_takes_its_share_of_the_cores(spec: ModelSpec) -> None:
    most = int(in_child(threads_of_torch))
    for asked, got in ((1, 1), (most, most), (most + 5, most), (None, min(most, max(1, (os.cpu_count() or 1) // 2)))):
        told: list[LoadProgress] = []
        async with started(spec, load_and_count_threads, told.append, cpu_threads=asked):
            assert told == [LoadProgress("start", got)]


def threads_of_torch() -> int:
    return torch.get_num_threads()


def test_what_a_child_does_comes_back_or_is_raised() -> None:
    devices = in_child(worker.list_devices)
    assert devices[-1].kind == "cpu"
    assert devices[-1].total_bytes == psutil.virtual_memory().total
    with pytest.raises(CheckpointError, match="no"):
        in_child(refuse)


def refuse() -> None:
    raise CheckpointError("no")


@pytest.mark.parametrize("quantises", [True, False])
def test_the_fork_server_has_no_device_and_no_threads(quantises: bool) -> None:
    """A fork of a process that has asked CUDA anything, or that has threads, is broken."""
    without = "pass" if quantises else 'sys.modules["bitsandbytes"] = None'
    run(f"""
        import sys, threading, warnings
        import torch
        {without}

        def refuse(*_, **__):
            raise AssertionError("asked for a device while importing")

        for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "mem_get_info"):
            setattr(torch.cuda, name, refuse)
        from playground.engines.processes.child_process import preloaded
        for name in preloaded():
            __import__(name)
        assert threading.active_count() == 1, threading.enumerate()
        assert not torch.cuda.is_initialized()
        assert {quantises} or "peft" in sys.modules
    """)


def test_the_apps_process_goes_without_torch_and_the_server_has_it_wherever_the_app_was_started(
    tmp_path: Path,
) -> None:
    (tmp_path / "probe.py").write_text(
        "import sys\ndef preloaded(): return {'torch', 'playground.engines.checkpoints.loader'} <= set(sys.modules)\n"
    )
    run(
        f"""
        import os, sys
        sys.path.append({str(tmp_path)!r})
        if __name__ == "__main__":
            import probe
            from playground.engines.processes.child_process import in_child, prepare
            from playground.engines.processes.worker import list_devices
            import playground.engines.pool
            here = os.getcwd()
            prepare()
            assert in_child(probe.preloaded)
            assert in_child(os.getcwd) == os.getcwd() == here
            assert in_child(list_devices)
            assert "torch" not in sys.modules
        """,
        tmp_path,
    )


def run(program: str, folder: Path = ROOT) -> None:
    """A program of its own, in this folder; its warnings are errors."""
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-W", "error::DeprecationWarning:multiprocessing", "-c", path + textwrap.dedent(program)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stderr

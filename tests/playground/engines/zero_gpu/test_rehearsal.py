"""The rehearsal does to a task what ZeroGPU's decorator does, as far as the task can tell."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from grant_room import PATIENCE_S, is_running

from playground.engines.zero_gpu.decorator import gpu_decorator
from playground.engines.zero_gpu.rehearsal import Rehearsal, RehearsedError
from playground.engines.zero_gpu.turn import Asked, Said, Turn, merged
from playground.errors import EngineError
from playground.types import GenerationChunk, GenerationRequest, LoadProgress, Message, Usage

ROOT = Path(__file__).parents[4]
REQUEST = GenerationRequest(model_id="any", messages=(Message(role="user", content="hi"),))
seen: list[str] = []


def turn(folder: Path) -> Turn:
    return Turn((Asked(REQUEST),), folder)


def run(task: Any, folder: Path, rehearsal: Rehearsal | None = None, seconds: int = 20) -> list[Any]:
    return list((rehearsal or Rehearsal())(task, lambda _: seconds)(turn(folder)))


def test_every_call_is_a_fork_whose_changes_are_lost(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        seen.append("here")
        yield os.getpid(), len(seen), turn.asked[0].request.request_id

    rehearsal = Rehearsal()
    told = [run(task, tmp_path, rehearsal)[0] for _ in range(2)]
    assert [pid for pid, _, _ in told] == rehearsal.workers
    assert os.getpid() not in rehearsal.workers
    assert [count for _, count, _ in told] == [1, 1]
    assert {name for _, _, name in told} == {REQUEST.request_id}
    assert rehearsal.grants == [20, 20]
    assert seen == []


def test_a_worker_may_be_used_again(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        seen.append("here")
        yield len(seen)

    rehearsal = Rehearsal(reuse=True)
    assert [run(task, tmp_path, rehearsal) for _ in range(3)] == [[1], [2], [3]]
    assert len(rehearsal.workers) == 1
    rehearsal.close()
    assert not is_running(rehearsal.workers[0])


@pytest.mark.parametrize("end", ["by itself", "with an exception", "closed", "killed"])
def test_a_worker_for_one_call_leaves_no_zombie(end: str, tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield os.getpid()
        if end == "with an exception":
            raise LookupError
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while end == "closed":
            yield "more"

    values: Any = Rehearsal()(task, lambda _: 20)(turn(tmp_path))
    worker = next(values)
    assert psutil.pid_exists(worker)
    if end == "closed":
        values.close()
    else:
        with suppress(RehearsedError):
            list(values)
    assert not psutil.pid_exists(worker)


@pytest.mark.parametrize("kind", ["coroutine", "async generator", "function"])
def test_it_refuses_all_but_plain_generators(kind: str) -> None:
    async def coroutine(turn: Turn) -> None: ...

    async def generator(turn: Turn) -> AsyncIterator[Any]:
        yield turn

    def function(turn: Turn) -> list[Any]:
        return []

    task: Any = {"coroutine": coroutine, "async generator": generator, "function": function}[kind]
    with pytest.raises(TypeError, match="no plain generator"):
        Rehearsal()(task, lambda _: 20)
    with pytest.raises(TypeError, match="no plain generator"):
        gpu_decorator("rehearse")(task, lambda _: 20)


def test_what_cannot_be_pickled_is_refused_where_it_is_sent(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield 1

    rehearsal = Rehearsal()
    asked: Any = Turn((Asked(lambda: None),), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(pickle.PicklingError):
        list(rehearsal(task, lambda _: 20)(asked))
    assert not is_running(rehearsal.workers[0])
    assert run(task, tmp_path, rehearsal) == [1]


def test_what_cannot_be_pickled_on_its_way_back_is_a_worker_error(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield 1
        yield lambda: None

    values = Rehearsal()(task, lambda _: 20)(turn(tmp_path))
    assert next(values) == 1  # type: ignore[comparison-overlap]
    with pytest.raises(RehearsedError, match="PicklingError") as told:
        next(values)
    assert told.value.title == "ZeroGPU worker error"


def test_an_exception_in_the_task_comes_as_the_name_of_its_class(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield 1
        raise LookupError("where?")

    rehearsal = Rehearsal(reuse=True)
    with pytest.raises(RehearsedError, match=r"^LookupError$") as told:
        run(task, tmp_path, rehearsal)
    assert told.value.title == "ZeroGPU worker error"
    assert not is_running(rehearsal.workers[0])


def test_a_worker_that_dies(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RehearsedError, match="GPU task aborted"):
        run(task, tmp_path)


def test_a_closed_generator_is_closed_in_the_worker_after_its_next_value(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        try:
            while True:
                yield 1
                time.sleep(0.001)
        finally:
            (turn.folder / "closed").touch()

    values: Any = Rehearsal()(task, lambda _: 20)(turn(tmp_path))
    assert next(values) == 1
    values.close()
    assert (tmp_path / "closed").exists()


def test_a_slow_reader_holds_up_nobody(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        for _ in range(200):
            yield "x" * 10_000  # more than a pipe holds
        (turn.folder / "done").touch()

    with closing(Rehearsal()(task, lambda _: 20)(turn(tmp_path))) as values:  # type: ignore[type-var]
        next(values)
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "done").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(list(values)) == 199


def test_too_long_a_grant_is_refused(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield 1

    rehearsal = Rehearsal(longest_s=60)
    with pytest.raises(RehearsedError, match=r"\(61s\) is larger than the maximum") as told:
        run(task, tmp_path, rehearsal, seconds=61)
    assert told.value.title == "ZeroGPU illegal duration"
    assert rehearsal.grants == []


def test_grants_at_the_same_time_are_workers_of_their_own(tmp_path: Path) -> None:
    def task(turn: Turn) -> Iterator[Any]:
        yield os.getpid()
        while not (turn.folder / "go").exists():
            time.sleep(0.01)

    rehearsal = Rehearsal()
    task_here = rehearsal(task, lambda _: 20)
    first, second = task_here(turn(tmp_path)), task_here(turn(tmp_path))
    assert next(first) != next(second)
    (tmp_path / "go").touch()
    assert [list(first), list(second)] == [[], []]


MULTIPLY = """
import sys, torch
from pathlib import Path
from playground.engines.zero_gpu.rehearsal import Rehearsal
from playground.engines.zero_gpu.turn import Turn
torch.set_num_threads(2)
square = torch.ones(512, 512)
(square @ square).sum()
torch.ones(1 << 22).exp().sum()  # OpenMP's threads are there now
def task(turn):
    yield float((square @ square)[0, 0]), float(torch.zeros(1 << 22).exp().sum())
print(list(Rehearsal()(task, lambda _: 20)(Turn((), Path(sys.argv[1])))))
"""


def test_a_fork_computes_though_its_parent_had_threads_of_openmp(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MULTIPLY, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert told.stdout.strip() == "[(512.0, 4194304.0)]"


ORPHAN = """
import sys, time
from pathlib import Path
from playground.engines.zero_gpu.rehearsal import Rehearsal
from playground.engines.zero_gpu.turn import Turn
def task(turn):
    while True:
        yield 1
        time.sleep(0.01)
rehearsal = Rehearsal()
values = rehearsal(task, lambda _: 20)(Turn((), Path(sys.argv[1])))
next(values)
print(rehearsal.workers[0], flush=True)
time.sleep(600)
"""


def test_a_worker_ends_with_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        worker = int(page.stdout.readline())
        assert is_running(worker)
        page.kill()
    gone = threading.Event()
    deadline = time.monotonic() + PATIENCE_S
    while is_running(worker) and time.monotonic() < deadline:
        gone.wait(0.05)
    assert not is_running(worker)


def test_chunks_that_follow_each_other_become_one() -> None:
    usage = [Usage(3, count) for count in range(1, 5)]
    said = [
        Said(0, LoadProgress("start")),
        Said(0, GenerationChunk("a", usage=usage[0], token_ids=(1,))),
        Said(1, GenerationChunk("x", token_ids=(7,))),
        Said(0, GenerationChunk("b", usage=usage[1], token_ids=(2, 3))),
        Said(0, GenerationChunk("", "stop", usage[2])),
        Said(1, EngineError("over")),
    ]
    together = merged(said)
    assert [one.number for one in together] == [0, 0, 1, 1]
    assert together[1].event == GenerationChunk("ab", "stop", usage[2], None, (1, 2, 3))
    assert [one.is_last for one in together] == [False, True, False, True]
    assert str(together[3].event) == "over"

"""ZeroGPU's decorator as one sees it from outside, on any Linux machine: for tests, and to try a Space before it is.

It forks, pickles what goes in and what comes out, and refuses what ZeroGPU refuses, with the same titles. What it
cannot rehearse is the GPU: tensors stay where they are. Written after spaces 0.51. Knows no engine.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from playground.engines.zero_gpu.duration import LONGEST_S
from playground.engines.zero_gpu.turn import Duration, Task, Turn, require_plain_generator

IDLE_S = 0.5
"""How often a worker that waits looks whether the page's process is still there."""


class RehearsedError(Exception):
    """As gradio's error, with the titles of `spaces`."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title, self.message = title, message


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a worker tells: a value, pickled; the class of an exception; or, with neither, the end."""

    value: bytes | None = None
    failure: str = ""


class Rehearsal:
    """A decorator: see `decorator.Decorate`.

    Args:
        reuse: whether a worker is kept for the next call, as ZeroGPU does where nobody else wants the GPU meanwhile.
        longest_s: what may be asked for.

    Attributes:
        grants: the seconds asked for, one entry a grant.
        workers: the process ids of all workers so far.
    """

    def __init__(self, *, reuse: bool = False, longest_s: int = LONGEST_S) -> None:
        self.grants: list[int] = []
        self.workers: list[int] = []
        self._reuse = reuse
        self._longest_s = longest_s
        self._idle: list[_Worker] = []
        self._forking = threading.Lock()
        """Held to fork, so that no worker inherits the open end of another's pipe."""

    def __call__(self, task: Task, duration: Duration) -> Task:
        require_plain_generator(task)

        def granted(turn: Turn) -> Iterator[Any]:
            self._grant(duration(turn))
            worker = self._worker(task)
            try:
                worker.ask(turn)
                yield from worker.told()
            finally:
                if worker.is_at_rest:
                    self._idle.append(worker)
                elif self._reuse:
                    worker.end()

        return granted

    def close(self) -> None:
        """End the workers that are kept."""
        while self._idle:
            self._idle.pop().end()

    def _grant(self, seconds: int) -> None:
        if seconds > self._longest_s:
            message = f"The requested GPU duration ({seconds}s) is larger than the maximum allowed"
            raise RehearsedError("ZeroGPU illegal duration", message)
        self.grants.append(seconds)

    def _worker(self, task: Task) -> _Worker:
        with self._forking:
            kept = self._idle.pop() if self._idle else None
            if kept is not None and kept.is_alive:
                return kept
            worker = _Worker(task, self._reuse)
        self.workers.append(worker.pid)
        return worker


class _Worker:
    """A fork of this process that runs a task, once or again and again."""

    def __init__(self, task: Task, reuse: bool) -> None:
        context = multiprocessing.get_context("fork")
        theirs, self._orders = context.Pipe(duplex=False)
        self._news, told = context.Pipe(duplex=False)
        self._stopped = context.Event()
        self._reuse = reuse
        self.is_at_rest = False
        ours = (self._orders, self._news)
        work = (task, theirs, told, self._stopped, ours, reuse)
        self._process = context.Process(target=_work, args=work, name="zero-gpu", daemon=True)
        self._process.start()
        theirs.close()
        told.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, turn: Turn) -> None:
        """Raises PicklingError."""
        self.is_at_rest = False
        try:
            order = pickle.dumps(turn)
        except Exception as error:
            self.end()
            raise pickle.PicklingError(str(error)) from error
        with suppress(BrokenPipeError):  # it is gone already: that is told by the pipe that it does not write to
            self._orders.send_bytes(order)

    def told(self) -> Iterator[Any]:
        """Raises RehearsedError."""
        outcomes: SimpleQueue[_Outcome | None] = SimpleQueue()
        filling = threading.Thread(target=self._fill, args=[outcomes], daemon=True)
        filling.start()
        try:
            while (outcome := outcomes.get()) != _Outcome():
                if outcome is None:
                    raise RehearsedError("ZeroGPU worker error", "GPU task aborted")
                if outcome.value is None:
                    raise RehearsedError("ZeroGPU worker error", outcome.failure)
                yield pickle.loads(outcome.value)
        except GeneratorExit:
            self._stopped.set()
            raise
        finally:
            filling.join()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._orders.close()

    def _fill(self, outcomes: SimpleQueue[_Outcome | None]) -> None:
        """Takes what comes at once, however slowly it is read, until the call ends or the process does.

        A worker for one call then ends by itself, and is waited for: else it would be a zombie until the next fork.
        """
        failed = False
        outcome = None
        while outcome != _Outcome():
            try:
                outcome = pickle.loads(self._news.recv_bytes())
            except (EOFError, OSError):
                outcomes.put(None)
                self._process.join()
                return
            failed = failed or bool(outcome.failure)
            outcomes.put(outcome)
        self.is_at_rest = self._reuse and not failed
        if not self._reuse:
            self._process.join()


def _work(
    task: Task, orders: Connection, told: Connection, stopped: Any, parents: tuple[Connection, ...], reuse: bool
) -> None:
    """The whole life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for connection in parents:
        connection.close()
    import torch

    torch.set_num_threads(1)  # OpenMP's threads have stayed on the other side of the fork, and it would wait for them
    home = os.getppid()
    while (turn := _next_turn(orders, home)) is not None:
        stopped.clear()
        with ThreadPoolExecutor(1) as thread:  # as `spaces` does, so that nothing here needs the main thread
            thread.submit(_run, task, turn, told, stopped, home).result()
        told.send_bytes(pickle.dumps(_Outcome()))
        if not reuse:
            return


def _next_turn(orders: Connection, home: int) -> Turn | None:
    """None where the page's process is gone, or wants nothing more."""
    while not orders.poll(IDLE_S):
        if os.getppid() != home:
            return None
    try:
        turn: Turn = pickle.loads(orders.recv_bytes())
    except EOFError:
        return None
    return turn


def _run(task: Task, turn: Turn, told: Connection, stopped: Any, home: int) -> None:
    values = task(turn)
    try:
        for value in values:
            if stopped.is_set() or os.getppid() != home:
                values.close()  # type: ignore[attr-defined]
                return
            told.send_bytes(pickle.dumps(_Outcome(_pickled(value))))
    except BrokenPipeError:
        return
    except Exception as error:
        traceback.print_exc()
        told.send_bytes(pickle.dumps(_Outcome(failure=type(error).__name__)))


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise pickle.PicklingError(str(error)) from error

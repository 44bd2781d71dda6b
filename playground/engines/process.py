"""An engine in a process of its own, behind the same protocol as one that is here.

Two models in one process fight for the interpreter at every token. Apart they do not, both load at once, a load can be
ended at any moment, and what goes wrong in one of them stays there. Called by the pool. Imports no torch.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.processes import worker
from playground.engines.processes.child_process import ChildProcess
from playground.engines.processes.wire import Abort, Ask, Cancel, Close, Ended, Failed, MemoryNow, News, Ready, Said
from playground.errors import EngineClosedError, EngineError, LoadCancelledError, LoadError, PlaygroundError
from playground.placement.plan import Placement
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress

ENGINES = 2
"""That are likely to be at work at once, and share the cores."""

POLL_S = 0.05
CLOSE_S = 1.2
"""Seconds that an engine gets to close by itself."""

log = logging.getLogger(__name__)


def start_engine(
    spec: ModelSpec,
    placement: Placement,
    report: Callable[[LoadProgress], None],
    cancelled: threading.Event,
    *,
    load: worker.Load = worker.load,
    cpu_threads: int | None = None,
) -> Engine:
    """Load a model in a process of its own; returns when it serves.

    Args:
        spec: the model.
        placement: where it goes.
        report: told how far it is, in a thread of the engine's.
        cancelled: when set, the process ends, whatever it is doing.
        load: makes the engine in the process; a module's function.
        cpu_threads: for its arithmetic on the CPU; its share of the cores if left out. It never gets more than torch
            would take, which OMP_NUM_THREADS says.

    Raises:
        LoadCancelledError: `cancelled` was set.
        PlaygroundError: what loading raised; LoadError where the process ended.
    """
    threads = cpu_threads or max(1, (os.cpu_count() or 1) // ENGINES)
    level = logging.getLogger().getEffectiveLevel()
    engine = ProcessEngine(worker.Task(spec, placement, load, threads, level), report)
    try:
        while not wait([engine.ready], POLL_S).done:
            if cancelled.is_set():
                raise LoadCancelledError(f"Loading {spec.name} was given up: send again to load it.")
        engine.ready.result()
    except BaseException:
        engine.abandon()
        raise
    return engine


class ProcessEngine:
    """See `Engine`.

    Attributes:
        ready: done when it serves, or failed with the reason why it never will.
    """

    def __init__(self, task: worker.Task, report: Callable[[LoadProgress], None]) -> None:
        self.model_id = task.spec.id
        self.ready: Future[None] = Future()
        self._name = task.spec.name
        self._report = report
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._answers: dict[int, _Answer] = {}
        self._memory: tuple[DeviceUse, ...] = ()
        self._refusal: PlaygroundError | None = None
        self._child = ChildProcess(task, self._hear, self._mourn)

    @property
    def alive(self) -> bool:
        """False once it was closed or its process has ended: it will answer nobody any more."""
        return self._refusal is None

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`."""
        number, answer = self._open()
        self._child.tell(Ask(number, request))
        try:
            while not isinstance(news := await answer.news.get(), Ended):
                yield news.chunk
            if news.error is not None:
                raise news.error
        finally:
            if self._answers.pop(number, None) is not None:
                self._child.tell(Cancel(number))

    async def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._child.tell(Abort(request_id))

    async def close(self) -> None:
        """See `Engine.close`. The process is gone after at most two seconds, and all its memory with it."""
        self._refuse(EngineClosedError, f"{self._name} was stopped: choose the model again.")
        self._child.tell(Close())
        await asyncio.to_thread(self._child.end, CLOSE_S)

    def abandon(self) -> None:
        """End the process at once; blocks until it is gone."""
        self._refuse(EngineClosedError, f"{self._name} was given up while it was loaded.")
        self._child.end(0)

    def memory(self) -> tuple[DeviceUse, ...]:
        """See `Engine.memory`; half a second old at most."""
        return self._memory

    def _open(self) -> tuple[int, _Answer]:
        answer = _Answer()
        with self._lock:
            if self._refusal is not None:
                raise type(self._refusal)(str(self._refusal))
            number = next(self._numbers)
            self._answers[number] = answer
        return number, answer

    def _refuse(self, kind: type[PlaygroundError], sentence: str) -> None:
        """Who is being answered is told; who comes later too, where nobody was told anything else before."""
        with self._lock:
            self._refusal = self._refusal or kind(sentence)
            answers, self._answers = self._answers, {}
        _deliver((answer, Ended(number, kind(sentence))) for number, answer in answers.items())

    # The rest runs in the thread that lives with the process.

    def _hear(self, batch: list[News]) -> None:
        pieces: list[tuple[_Answer, Said | Ended]] = []
        for news in batch:
            match news:
                case Said(number) if (answer := self._answers.get(number)) is not None:
                    pieces.append((answer, news))
                case Ended(number) if (answer := self._answers.pop(number, None)) is not None:
                    pieces.append((answer, news))
                case MemoryNow(devices):
                    self._memory = devices
                case LoadProgress():
                    self._report(news)
                case Ready():
                    self.ready.set_result(None)
                case Failed(error):
                    self.ready.set_exception(error)
        _deliver(pieces)

    def _mourn(self, how: str) -> None:
        if self.alive:
            log.error("the process of %s ended (%s)", self.model_id, how or "nobody knows how")
        ended = f"its process ended ({how})" if how else "its process ended"
        self._memory = ()
        self._refuse(EngineError, f"{self._name} is gone: {ended}. Send again: the model is loaded anew.")
        if not self.ready.done():
            self.ready.set_exception(
                LoadError(f"{self._name} could not be loaded: {ended}. Free some memory, or choose a smaller model.")
            )


class _Answer:
    """Belongs to the event loop that reads it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.news: asyncio.Queue[Said | Ended] = asyncio.Queue()


def _deliver(pieces: Iterable[tuple[_Answer, Said | Ended]]) -> None:
    """With one call a loop: each wakes it up."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Answer, Said | Ended]]] = {}
    for answer, news in pieces:
        by_loop.setdefault(answer.loop, []).append((answer, news))
    for loop, its in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody reads any more
            loop.call_soon_threadsafe(_put, its)


def _put(pieces: Iterable[tuple[_Answer, Said | Ended]]) -> None:
    for answer, news in pieces:
        answer.news.put_nowait(news)

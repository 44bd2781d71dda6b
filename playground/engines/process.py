"""An engine in a process of its own, behind the same protocol as one that is here.

Two models in one process fight for the interpreter at every token. Apart they do not, both load at once, a load can be
ended at any moment, and what goes wrong in one of them stays there. A model with an adapter is no other model: it has
an engine of its own in the process of its base. Called by the pool. Imports no torch.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, wait

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.base import Engine
from playground.engines.processes import worker
from playground.engines.processes.answers import Answers
from playground.engines.processes.attached import AttachedEngine
from playground.engines.processes.child_process import ChildProcess
from playground.engines.processes.wire import (
    BASE,
    Abort,
    Attach,
    Attached,
    Close,
    Detached,
    Ended,
    Failed,
    MemoryNow,
    News,
    NotAttached,
    Order,
    Ready,
    Said,
    Scored,
)
from playground.errors import EngineClosedError, EngineError, LoadCancelledError, LoadError, PlaygroundError
from playground.placement.plan import Placement
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress, ScoredPiece

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
        self._memory: tuple[DeviceUse, ...] = ()
        self._answers = Answers(self._tell)
        self._lock = threading.Lock()
        self._numbers = itertools.count(BASE + 1)
        self._attached: dict[int, AttachedEngine] = {}
        self._child = ChildProcess(task, self._hear, self._mourn)

    @property
    def alive(self) -> bool:
        """False once it was closed or its process has ended: it will answer nobody any more."""
        return self._answers.refusal(BASE) is None

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`."""
        return self._answers.stream(BASE, request)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`."""
        return await self._answers.score(BASE, request, token_ids)

    async def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._tell(Abort(request_id))

    async def close(self) -> None:
        """See `Engine.close`. The process is gone after at most two seconds, and all its memory with it."""
        self._refuse(EngineClosedError, f"{self._name} was stopped: choose the model again.")
        self._tell(Close())
        await asyncio.to_thread(self._child.end, CLOSE_S)

    def abandon(self) -> None:
        """End the process at once; blocks until it is gone."""
        self._refuse(EngineClosedError, f"{self._name} was given up while it was loaded.")
        self._child.end(0)

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`.

        Raises:
            EngineError: besides what the protocol says, where the process ended.
        """
        engine = self._enter(f"{self._name} with {adapter.name}")
        self._tell(Attach(engine.number, adapter, scale, kv_tokens))
        engine.ready.result()
        return engine

    def memory(self) -> tuple[DeviceUse, ...]:
        """See `Engine.memory`; half a second old at most."""
        return self._memory

    def _enter(self, name: str) -> AttachedEngine:
        with self._lock:
            if (refusal := self._answers.refusal(BASE)) is not None:
                raise refusal
            number = next(self._numbers)
            engine = self._attached[number] = AttachedEngine(number, self.model_id, name, self._answers, self._tell)
        return engine

    def _refuse(self, kind: type[PlaygroundError], sentence: str) -> None:
        """Nobody is answered any more, and nothing attached."""
        self._answers.refuse(kind, sentence)
        with self._lock:
            attached = list(self._attached.values())
        for engine in attached:
            engine.give_up(kind(sentence))

    def _tell(self, order: Order) -> None:
        self._child.tell(order)

    # The rest runs in the thread that lives with the process.

    def _hear(self, batch: list[News]) -> None:
        for news in batch:
            match news:
                case Attached(number):
                    self._attached[number].serve()
                case NotAttached(number, error):
                    self._attached.pop(number).give_up(error)
                case Detached(number):
                    self._attached.pop(number).end()
                case MemoryNow(devices, number) if number == BASE:
                    self._memory = devices
                case MemoryNow(devices, number) if number in self._attached:
                    self._attached[number].devices = devices
                case LoadProgress():
                    self._report(news)
                case Ready():
                    self.ready.set_result(None)
                case Failed(error):
                    self.ready.set_exception(error)
        self._answers.hear(news for news in batch if isinstance(news, Said | Scored | Ended))

    def _mourn(self, how: str) -> None:
        if self.alive:
            log.error("the process of %s ended (%s)", self.model_id, how or "nobody knows how")
        ended = f"its process ended ({how})" if how else "its process ended"
        self._memory = ()
        self._refuse(EngineError, f"{self._name} is gone: {ended}. Send again: the model is loaded anew.")
        for engine in list(self._attached.values()):
            engine.end()
        if not self.ready.done():
            self.ready.set_exception(
                LoadError(f"{self._name} could not be loaded: {ended}. Free some memory, or choose a smaller model.")
            )

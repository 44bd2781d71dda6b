"""The process of an engine: loads it, then answers what comes through the wire, until it is told to close.

What the engine attaches, for its model with an adapter, lives here too: same weights, same wire, another number.
`process` starts it, and imports it too, so torch and the loader are imported in the functions: the app's process does
without them. One thread receives, the event loop answers and sends; the engine has its own. A slow reader at the other
end holds up this loop, never the generation.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from multiprocessing.connection import Connection

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.processes.wire import (
    BASE,
    Abort,
    Ask,
    Attach,
    Attached,
    Cancel,
    Close,
    Detach,
    Detached,
    Ended,
    Failed,
    MemoryNow,
    News,
    NotAttached,
    Order,
    Ready,
    Said,
    Score,
    Scored,
    Wire,
)
from playground.errors import EngineClosedError, EngineError, LoadError, PlaygroundError
from playground.log import configure_log
from playground.placement.plan import Device, Placement
from playground.types import DeviceUse, GenerationRequest, LoadProgress

MEMORY_INTERVAL_S = 0.5
ATTACHING = 4
"""Engines at a time; threads of their own, for answers need the others."""

ORPHAN_S = 1.0
"""Seconds that an engine gets to close when the app is gone."""

log = logging.getLogger(__name__)

Load = Callable[[ModelSpec, Placement, Callable[[LoadProgress], None]], Engine]


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is started for. `load` goes by its name, so it is a module's function."""

    spec: ModelSpec
    placement: Placement
    load: Load
    cpu_threads: int
    log_level: int


def load(spec: ModelSpec, placement: Placement, report: Callable[[LoadProgress], None]) -> Engine:
    """See `loader.load_engine`."""
    from playground.engines.checkpoints.loader import load_engine

    return load_engine(spec, placement, report)


def list_devices() -> tuple[Device, ...]:
    """See `devices.find_devices`; to be run in a process that ends, since asking makes a CUDA context."""
    from playground.placement.devices import find_devices

    return find_devices()


def work(connection: Connection, task: Task) -> None:
    """The whole life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group, but the app decides who ends
    configure_log(task.log_level)
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), task.cpu_threads))
    with asyncio.Runner() as runner:
        worker = Worker(Wire(connection), task.spec.name, runner.get_loop())
        threading.Thread(target=worker.listen, name="orders", daemon=True).start()
        engine = worker.load(task)
        if engine is not None:
            runner.run(worker.serve(engine))


class Worker:
    """One engine, those that it attaches, and those who wait for them at the other end of the wire."""

    def __init__(self, wire: Wire[News, Order], name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._name = name
        self._loop = loop
        self._news: list[News] = []
        self._running: dict[object, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self._engines: dict[int, Engine] = {}
        self._told: dict[int, tuple[DeviceUse, ...]] = {}
        self._attaching = ThreadPoolExecutor(ATTACHING, "attach")

    def load(self, task: Task) -> Engine | None:
        """The engine, or None when it has told why there is none."""
        try:
            return task.load(task.spec, task.placement, lambda progress: self._wire.send([progress]))
        except PlaygroundError as error:
            failure = error
        except Exception as error:
            log.exception("loading %s", self._name)
            failure = LoadError(f"{self._name} could not be loaded: {_first_line(error)}. The log has the details.")
        self._wire.send([Failed(failure)])
        return None

    def listen(self) -> None:
        """Runs in a thread: takes orders until the other end is gone, and sees to it that this process goes too."""
        while (orders := self._wire.receive()) is not None:
            self._loop.call_soon_threadsafe(self._obey, orders)
        self._loop.call_soon_threadsafe(self._closing.set)
        time.sleep(ORPHAN_S)
        os._exit(1)

    async def serve(self, engine: Engine) -> None:
        """Answer until told to close."""
        self._engines[BASE] = engine
        gc.freeze()  # all this stays to the end: who collects garbage later, and holds everyone up, need not look at it
        self._say(Ready())
        memory = asyncio.create_task(self._watch_memory())
        await self._closing.wait()
        memory.cancel()
        await engine.close()

    def _obey(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Ask(number, request, key):
                    self._begin(number, self._answer(number, request, key))
                case Score(number):
                    self._begin(number, self._score(order))
                case Cancel(number) if number in self._running:
                    self._running[number].cancel()
                case Abort(request_id, key) if key in self._engines:
                    # A task, so that it comes behind the first step of a request that was asked just before.
                    self._begin(object(), self._engines[key].abort(request_id))
                case Attach():
                    self._begin(object(), self._attach(order))
                case Detach(key) if key in self._engines:
                    self._begin(object(), self._detach(key))
                case Close():
                    self._closing.set()

    def _begin(self, key: object, what: Coroutine[None, None, None]) -> None:
        task = self._running[key] = self._loop.create_task(what)
        task.add_done_callback(lambda _: self._running.pop(key))

    async def _answer(self, number: int, request: GenerationRequest, key: int) -> None:
        error: PlaygroundError | None = None
        try:
            async with aclosing(self._engine(key).stream(request)) as chunks:
                async for chunk in chunks:
                    self._say(Said(number, chunk))
        except Exception as raised:
            error = self._sentence(raised, "answering")
        self._say(Ended(number, error))

    async def _score(self, order: Score) -> None:
        try:
            pieces = await self._engine(order.engine).score(order.request, order.token_ids)
        except Exception as error:
            self._say(Ended(order.number, self._sentence(error, "scoring")))
        else:
            self._say(Scored(order.number, pieces))

    def _engine(self, key: int) -> Engine:
        if key not in self._engines:
            raise EngineClosedError(f"{self._name} was asked for an adapter that is gone: send again.")
        return self._engines[key]

    async def _attach(self, order: Attach) -> None:
        attach = self._engines[BASE].attach
        what = (order.adapter, order.scale, order.kv_tokens)
        try:
            self._engines[order.engine] = await self._loop.run_in_executor(self._attaching, attach, *what)
        except Exception as error:
            self._say(NotAttached(order.engine, self._sentence(error, "attaching an adapter")))
        else:
            self._tell_memory()
            self._say(Attached(order.engine))

    async def _detach(self, key: int) -> None:
        engine = self._engines.pop(key)
        self._told.pop(key, None)
        await engine.close()
        del engine
        await asyncio.to_thread(_free)
        self._tell_memory()
        self._say(Detached(key))

    def _sentence(self, error: Exception, doing: str) -> PlaygroundError:
        if isinstance(error, PlaygroundError):
            return error
        log.error("%s: %s", self._name, doing, exc_info=error)
        return EngineError(f"{self._name} failed: {_first_line(error)}. Try again; the log has the details.")

    async def _watch_memory(self) -> None:
        while True:
            self._tell_memory()
            await asyncio.sleep(MEMORY_INTERVAL_S)

    def _tell_memory(self) -> None:
        """As far as it has changed."""
        for key, engine in self._engines.items():
            now = engine.memory()
            if now != self._told.get(key):
                self._told[key] = now
                self._say(MemoryNow(now, key))

    def _say(self, news: News) -> None:
        """Sent at the end of this turn of the loop, with all else that is said in it."""
        self._news.append(news)
        if len(self._news) == 1:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        news, self._news = self._news, []
        self._wire.send(news)


def _free() -> None:
    """What an engine leaves behind holds on to itself; and torch keeps what it has had of a device."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

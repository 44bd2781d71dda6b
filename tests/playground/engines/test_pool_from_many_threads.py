"""The pool under everything at once, from several threads and loops: no device is ever promised twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from adapter_shelf import Shelf
from fakes import spec
from held_engines import WHOLE, ask, device

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.pool import EnginePool
from playground.errors import (
    DownloadError,
    EngineClosedError,
    EngineError,
    LoadCancelledError,
    OutOfMemoryError,
    PlacementError,
)
from playground.placement.plan import Placement
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress

MODELS = ("a", "b", "c", "d")
ADAPTERS = ("formal", "casual", "poetic")
VIEW_BYTES = 500_000_000
"""Less than what the pool sets aside for one at the least."""

THREADS, VERBS = 6, 60
EXPECTED = (EngineError, LoadCancelledError, PlacementError, DownloadError)


class Memory:
    """What stands in the memory; remembers the first thing that should never be."""

    def __init__(self, room_bytes: int) -> None:
        self.standing: dict[str, int] = {}
        self.loads = Counter[str]()
        self.wrong = ""
        self._room = room_bytes
        self._lock = threading.Lock()

    def take(self, name: str, size: int) -> None:
        with self._lock:
            self.loads[name.partition("+")[1]] += 1
            if name in self.standing:
                self.wrong = self.wrong or f"{name} twice"
            self.standing[name] = size
            if sum(self.standing.values()) > self._room:
                self.wrong = self.wrong or f"{self.standing} in {self._room}"

    def give_back(self, name: str) -> None:
        with self._lock:
            del self.standing[name]

    def require(self, condition: bool, wrong: str) -> None:
        if not condition:
            self.wrong = self.wrong or wrong


class QuickEngine:
    """`views` are the engines that it attached and that have not ended; with `base` it is one of these."""

    def __init__(self, name: str, memory: Memory, dice: random.Random, base: QuickEngine | None = None) -> None:
        self.model_id = name.partition("+")[0]
        self.alive = True
        self.closed = False
        self.views: dict[str, QuickEngine] = {}
        self._name = name
        self._memory = memory
        self._dice = dice
        self._base = base
        self._answering = 0
        self._ending = threading.Lock()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if not self.alive:
            raise EngineError(f"{self._name} is gone")
        self._memory.require(not self.closed, f"{self._name} was asked after it was closed")
        self._answering += 1
        for _ in range(3):
            yield GenerationChunk("x")
            await asyncio.sleep(0)
        self._answering -= 1
        yield GenerationChunk("", "stop")

    async def abort(self, request_id: str) -> None: ...

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> QuickEngine:
        with self._ending:
            if self.closed or not self.alive:
                raise EngineClosedError(f"{self._name} was stopped")
            name = f"{self._name}+{adapter.id}"
            if self._dice.random() < 0.1:
                raise OutOfMemoryError(f"no room for {name}")
            self._memory.take(name, VIEW_BYTES)
            view = self.views[name] = QuickEngine(name, self._memory, self._dice, self)
        return view

    def die(self) -> None:
        """As a process does that is killed: all its memory is free, and its views are no more."""
        with self._ending:
            self._end(killed=True)

    async def close(self) -> None:
        self._memory.require(self._answering == 0 or not self.alive, f"{self._name} was closed while it answered")
        with self._ending if self._base is None else self._base._ending:
            self._end(killed=False)

    def memory(self) -> tuple[DeviceUse, ...]:
        return ()

    def _end(self, killed: bool) -> None:
        self.alive = self.alive and not killed
        for view in [*self.views.values()]:
            self._memory.require(view._answering == 0 or killed, f"{view._name} lost its base")
            view._end(killed)
        if self._base is not None:
            self._base.views.pop(self._name, None)
        if not self.closed:
            self._memory.give_back(self._name)
        self.closed = True


@pytest.mark.parametrize("kills", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_things_promises_a_room_twice(seed: int, kills: float) -> None:
    place = device(2.6)
    memory, dice = Memory(place.free_bytes), random.Random(seed)
    engines: list[QuickEngine] = []

    def start(
        spec: ModelSpec, placement: Placement, report: Callable[[LoadProgress], None], cancelled: threading.Event
    ) -> QuickEngine:
        memory.take(spec.id, placement.total_bytes)
        report(LoadProgress("weights", 1, 2))
        if cancelled.wait(dice.choice((0, 0.001))) or dice.random() < 0.1:
            memory.give_back(spec.id)
            raise LoadCancelledError("given up") if cancelled.is_set() else DownloadError("no network")
        engines.append(QuickEngine(spec.id, memory, dice))
        return engines[-1]

    options = replace(WHOLE, views=2)
    pool = EnginePool(Registry([spec(model_id) for model_id in MODELS]), [place], options, start, Shelf())

    async def one_user(number: int) -> None:
        own = random.Random(f"{seed} {number}")
        for _ in range(VERBS):
            if engines and own.random() < kills:
                own.choice(engines).die()
            with suppress(*EXPECTED):
                await _something(pool, own)

    with ThreadPoolExecutor(THREADS) as users:
        for done in [users.submit(asyncio.run, one_user(number)) for number in range(THREADS)]:
            done.result(60)
    everyone = [*pool._roster._residents.values()]
    assert [one.tag for one in everyone if one.users] == [], "nobody is counted who is gone"
    asyncio.run(pool.close())
    assert not memory.wrong
    assert memory.standing == {}
    assert memory.loads[""] > len(MODELS)
    assert memory.loads["+"] > len(ADAPTERS)


async def _something(pool: EnginePool, dice: random.Random) -> None:
    model_id = dice.choice(MODELS)
    match dice.randrange(10):
        case 0:
            await pool.unload(model_id)
        case 1:
            pool.cancel(model_id)
        case 2:
            pool.preload(dice.sample(MODELS, 2))
        case 3:
            pool.status(model_id)
            pool.memory()
        case _:
            stream = pool.stream(ask(model_id, dice.choice(("", *ADAPTERS))))
            async with aclosing(stream):
                async for event in stream:
                    if isinstance(event, LoadProgress) and dice.random() < 0.1:
                        break  # a user who does not wait

"""The pool under everything at once, from several threads and loops: no device is ever promised twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from fakes import spec
from held_engines import WHOLE, ask, device

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.pool import EnginePool
from playground.errors import DownloadError, EngineBusyError, EngineClosedError, LoadCancelledError, PlacementError
from playground.placement.plan import Placement
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress

MODELS = ("a", "b", "c", "d")
THREADS, VERBS = 6, 60
EXPECTED = (EngineBusyError, EngineClosedError, LoadCancelledError, PlacementError, DownloadError)


class Memory:
    """What stands in the memory; remembers the first thing that should never be."""

    def __init__(self, room_bytes: int) -> None:
        self.standing: dict[str, int] = {}
        self.loads = 0
        self.wrong = ""
        self._room = room_bytes
        self._lock = threading.Lock()

    def take(self, placement: Placement) -> None:
        with self._lock:
            self.loads += 1
            if placement.model_id in self.standing:
                self.wrong = self.wrong or f"{placement.model_id} twice"
            self.standing[placement.model_id] = placement.total_bytes
            if sum(self.standing.values()) > self._room:
                self.wrong = self.wrong or f"{self.standing} in {self._room}"

    def give_back(self, model_id: str) -> None:
        with self._lock:
            del self.standing[model_id]


class QuickEngine:
    def __init__(self, model_id: str, memory: Memory) -> None:
        self.model_id = model_id
        self.alive = True
        self.closed = False
        self._memory = memory
        self._answering = 0

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if self.closed:
            self._memory.wrong = f"{self.model_id} was asked after it was closed"
        self._answering += 1
        for _ in range(3):
            yield GenerationChunk("x")
            await asyncio.sleep(0)
        self._answering -= 1
        yield GenerationChunk("", "stop")

    async def abort(self, request_id: str) -> None: ...

    async def close(self) -> None:
        if self._answering > 0:
            self._memory.wrong = f"{self.model_id} was closed while it answered"
        self.closed = True
        self._memory.give_back(self.model_id)

    def memory(self) -> tuple[DeviceUse, ...]:
        return ()


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_things_promises_a_room_twice(seed: int) -> None:
    place = device(2.5)
    memory, dice = Memory(place.free_bytes), random.Random(seed)

    def start(
        spec: ModelSpec, placement: Placement, report: Callable[[LoadProgress], None], cancelled: threading.Event
    ) -> QuickEngine:
        memory.take(placement)
        report(LoadProgress("weights", 1, 2))
        if cancelled.wait(dice.choice((0, 0.001))) or dice.random() < 0.1:
            memory.give_back(spec.id)
            raise LoadCancelledError("given up") if cancelled.is_set() else DownloadError("no network")
        return QuickEngine(spec.id, memory)

    pool = EnginePool(Registry([spec(model_id) for model_id in MODELS]), [place], WHOLE, start)

    async def one_user(number: int) -> None:
        own = random.Random(f"{seed} {number}")
        for _ in range(VERBS):
            with suppress(*EXPECTED):
                await _something(pool, own)

    with ThreadPoolExecutor(THREADS) as users:
        for done in [users.submit(asyncio.run, one_user(number)) for number in range(THREADS)]:
            done.result(60)
    asyncio.run(pool.close())
    assert not memory.wrong
    assert memory.standing == {}
    assert memory.loads > len(MODELS)


async def _something(pool: EnginePool, dice: random.Random) -> None:
    model_id = dice.choice(MODELS)
    match dice.randrange(8):
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
            async for _ in pool.stream(ask(model_id)):
                pass

"""A `start` for the pool whose loads, answers and ends happen when the test says so, and a diary of what happened.

For what real engines cannot be made to do on demand: arrive, fail, die or hang at a chosen moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from queue import Queue

from fakes import spec

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.pool import EnginePool
from playground.errors import EngineClosedError, LoadCancelledError
from playground.placement.plan import Device, Placement, PlanOptions
from playground.placement.planner import plan
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress, Message, StreamEvent

PATIENCE_S = 20
"""After which a test fails that would hang."""

WHOLE = PlanOptions(quantisation="none")


class HeldEngine:
    """Says "one " and then nothing until `finish`, `die` or `close`. With `hold_close`, `close` waits for `let_go`."""

    def __init__(self, model_id: str, diary: list[str], uses: tuple[DeviceUse, ...] = ()) -> None:
        self.model_id = model_id
        self.alive = True
        self.closing = threading.Event()
        self._diary = diary
        self._uses = uses
        self._let_go = threading.Event()
        self._let_go.set()
        self._end: Future[None] = Future()
        self._end.set_running_or_notify_cancel()

    def finish(self) -> None:
        """All its answers come to their end, those to come too."""
        self._end.set_result(None)

    def die(self, error: Exception) -> None:
        self.alive = False
        self._end.set_exception(error)

    def hold_close(self) -> None:
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("one ")
        await asyncio.wrap_future(self._end)
        yield GenerationChunk("end", "stop")

    async def abort(self, request_id: str) -> None:
        raise AssertionError("tests close streams instead")

    async def close(self) -> None:
        self.closing.set()
        assert await asyncio.to_thread(self._let_go.wait, PATIENCE_S)
        if not self._end.done():
            self._end.set_exception(EngineClosedError("stopped"))
        self._diary.append(f"gone {self.model_id}")

    def memory(self) -> tuple[DeviceUse, ...]:
        return self._uses


class HeldLoad:
    """One load that has begun; it ends by `arrive`, `fail` or `obey`."""

    def __init__(
        self,
        spec: ModelSpec,
        placement: Placement,
        report: Callable[[LoadProgress], None],
        cancelled: threading.Event,
        diary: list[str],
    ) -> None:
        self.spec, self.placement, self.report, self.cancelled = spec, placement, report, cancelled
        self.outcome: Future[HeldEngine] = Future()
        self._diary = diary

    def arrive(self, *uses: DeviceUse) -> HeldEngine:
        engine = HeldEngine(self.spec.id, self._diary, uses)
        self.outcome.set_result(engine)
        return engine

    def fail(self, error: BaseException) -> None:
        self._diary.append(f"gone {self.spec.id}")
        self.outcome.set_exception(error)

    def obey(self) -> None:
        """End as a process does that was told to."""
        assert self.cancelled.wait(PATIENCE_S)
        self.fail(LoadCancelledError("the process was ended"))


class HeldLoads:
    """The `start` itself."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self._begun: defaultdict[str, Queue[HeldLoad]] = defaultdict(Queue)

    def __call__(
        self,
        spec: ModelSpec,
        placement: Placement,
        report: Callable[[LoadProgress], None],
        cancelled: threading.Event,
    ) -> HeldEngine:
        self.diary.append(f"load {spec.id}")
        load = HeldLoad(spec, placement, report, cancelled, self.diary)
        self._begun[spec.id].put(load)
        return load.outcome.result(PATIENCE_S)

    async def next(self, model_id: str) -> HeldLoad:
        """The model's next load, once it has begun."""
        return await asyncio.to_thread(self._begun[model_id].get, timeout=PATIENCE_S)

    def count(self, model_id: str) -> int:
        return self.diary.count(f"load {model_id}")


def machine(room_for: float, model_ids: tuple[str, ...] = ("a", "b", "c")) -> tuple[EnginePool, HeldLoads]:
    """A pool over models of one size, on a CPU with room for so many of them."""
    specs = [spec(model_id) for model_id in model_ids]
    loads = HeldLoads()
    return EnginePool(Registry(specs), [device(room_for)], WHOLE, loads), loads


def device(room_for: float) -> Device:
    plenty = Device("cpu", "cpu", 10**12, 10**12)
    size = plan([spec("a")], [plenty], WHOLE).of("a").total_bytes
    return Device("cpu", "cpu", 10 * size, int(room_for * size))


def ask(model_id: str) -> GenerationRequest:
    return GenerationRequest(model_id=model_id, messages=(Message(role="user", content="hi"),))


class Panel:
    """One user's question: the stream, its events so far, and its end."""

    def __init__(self, pool: EnginePool, model_id: str) -> None:
        self.events: list[StreamEvent] = []
        self._came = asyncio.Event()
        self._run = asyncio.create_task(self._follow(pool, ask(model_id)))

    async def _follow(self, pool: EnginePool, request: GenerationRequest) -> None:
        try:
            async for event in pool.stream(request):
                self.events.append(event)
                self._came.set()
        finally:
            self._came.set()

    async def speaks(self) -> None:
        """Returns when the first piece of the answer is there."""
        await self._until(lambda: any(isinstance(event, GenerationChunk) for event in self.events))

    async def waits(self, steps: int = 1) -> None:
        """Returns when so many steps of progress have come."""
        await self._until(lambda: len(self.events) >= steps)

    async def end(self) -> str:
        """The answer, or the stream's error."""
        async with asyncio.timeout(PATIENCE_S):
            await self._run
        return "".join(event.delta for event in self.events if isinstance(event, GenerationChunk))

    async def go_away(self) -> None:
        self._run.cancel()
        await asyncio.wait([self._run])

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self._run.done():
                    self._run.result()
                    raise AssertionError("the stream ended")
                self._came.clear()
                await self._came.wait()


async def make_ready(pool: EnginePool, loads: HeldLoads, model_id: str) -> HeldEngine:
    """The model is there and has answered once."""
    panel = Panel(pool, model_id)
    engine = (await loads.next(model_id)).arrive()
    await panel.speaks()
    await panel.go_away()
    return engine

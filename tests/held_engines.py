"""A `start` for the pool whose loads, answers and ends happen when the test says so, and a diary of what happened.

For what real engines cannot be made to do on demand: arrive, fail, die or hang at a chosen moment. Adapters come from a
`Shelf`, where every name is an adapter.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from queue import Queue

from adapter_shelf import Shelf
from fakes import spec

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.pool import EnginePool
from playground.errors import EngineClosedError, LoadCancelledError
from playground.placement.plan import Device, Placement, PlanOptions
from playground.placement.planner import plan
from playground.types import (
    AdapterUse,
    DeviceUse,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    ScoredPiece,
)

PATIENCE_S = 20
"""After which a test fails that would hang."""

WHOLE = PlanOptions(quantisation="none")


class HeldEngine:
    """Says "one " and then nothing until `finish`, `die` or `close`. With `hold_close`, `close` waits for `let_go`.

    `tag` is what the diary calls it: the model, or "a+formal" for one that was attached. Attaching waits for the test.
    """

    def __init__(self, model_id: str, diary: list[str], uses: tuple[DeviceUse, ...] = (), tag: str = "") -> None:
        self.model_id = model_id
        self.alive = True
        self.closing = threading.Event()
        self.aborted: list[str] = []
        self.scored: list[tuple[int, ...]] = []
        self._tag = tag or model_id
        self._gone = False
        self._diary = diary
        self._uses = uses
        self._attaching: Queue[HeldAttach] = Queue()
        self._attached: list[HeldAttach] = []
        self._let_go = threading.Event()
        self._let_go.set()
        self._end: Future[None] = Future()
        self._end.set_running_or_notify_cancel()

    def finish(self) -> None:
        """All its answers come to their end, those to come too."""
        self._end.set_result(None)

    def die(self, error: Exception) -> None:
        """With its views, and whoever attaches one."""
        self.alive = False
        self._end.set_exception(error)
        for attach in self._attached:
            attach.die(error)

    def hold_close(self) -> None:
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("one ")
        await asyncio.wrap_future(self._end)
        yield GenerationChunk("end", "stop")

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """As many pieces as tokens, when `finish` was called."""
        self.scored.append(tuple(token_ids))
        await asyncio.wrap_future(self._end)
        return tuple(ScoredPiece(str(token), ()) for token in token_ids)

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def close(self) -> None:
        self.closing.set()
        assert await asyncio.to_thread(self._let_go.wait, PATIENCE_S)
        for attach in self._attached:
            await attach.close()
        if not self._end.done():
            self._end.set_exception(EngineClosedError("stopped"))
        if not self._gone:
            self._gone = True
            self._diary.append(f"gone {self._tag}")

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> HeldEngine:
        attach = HeldAttach(self.model_id, f"{self._tag}+{adapter.id}", scale, kv_tokens, self._diary)
        self._diary.append(f"attach {attach.tag}")
        self._attached.append(attach)
        self._attaching.put(attach)
        return attach.outcome.result(PATIENCE_S)

    async def next_view(self) -> HeldAttach:
        """The next view that is to be attached, once it is asked for."""
        return await asyncio.to_thread(self._attaching.get, timeout=PATIENCE_S)

    def memory(self) -> tuple[DeviceUse, ...]:
        return self._uses


class HeldAttach:
    """A view that is to be attached; it ends by `arrive` or `fail`, or with its base."""

    def __init__(self, model_id: str, tag: str, scale: float, kv_tokens: int, diary: list[str]) -> None:
        self.tag, self.scale, self.kv_tokens = tag, scale, kv_tokens
        self.outcome: Future[HeldEngine] = Future()
        self._model_id = model_id
        self._diary = diary

    def arrive(self, *uses: DeviceUse) -> HeldEngine:
        engine = HeldEngine(self._model_id, self._diary, uses, self.tag)
        self.outcome.set_result(engine)
        return engine

    def fail(self, error: BaseException) -> None:
        self.outcome.set_exception(error)

    def die(self, error: Exception) -> None:
        if not self.outcome.done():
            self.fail(error)
        elif self.outcome.exception() is None:
            with suppress(InvalidStateError):  # its answers have come to their end
                self.outcome.result().die(error)

    async def close(self) -> None:
        if not self.outcome.done():
            self.fail(EngineClosedError("stopped"))
        elif self.outcome.exception() is None:
            await self.outcome.result().close()


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


def machine(
    room_for: float, model_ids: tuple[str, ...] = ("a", "b", "c"), views: int = 8
) -> tuple[EnginePool, HeldLoads]:
    """A pool over models of one size, on a CPU with room for so many of them; a view takes half of a model."""
    specs = [spec(model_id) for model_id in model_ids]
    loads = HeldLoads()
    options = replace(WHOLE, views=views)
    return EnginePool(Registry(specs), [device(room_for)], options, loads, Shelf()), loads


def device(room_for: float) -> Device:
    plenty = Device("cpu", "cpu", 10**12, 10**12)
    size = plan([spec("a")], [plenty], WHOLE).of("a").total_bytes
    return Device("cpu", "cpu", 10 * size, int(room_for * size))


def ask(model_id: str, adapter: str = "", scale: float = 1.0) -> GenerationRequest:
    use = AdapterUse(id=adapter, revision="r1", scale=scale) if adapter else None
    return GenerationRequest(model_id=model_id, adapter=use, messages=(Message(role="user", content="hi"),))


def views(pool: EnginePool) -> list[str]:
    """The adapters of the engines that are there; those have to use memory, so that they are reported."""
    labels = [label for report in pool.memory() for label, _ in report.engines]
    return sorted(label.adapter.id for label in labels if label.adapter is not None)

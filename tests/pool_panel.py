"""A user of the pool: a panel that asks, and tells what came of it; on engines that are held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from held_engines import PATIENCE_S, HeldEngine, HeldLoads, ask

from playground.engines.pool import EnginePool
from playground.types import GenerationChunk, GenerationRequest, LoadProgress, LoadStage, StreamEvent


class Panel:
    """One user's question: the stream, its events so far, and its end."""

    def __init__(self, pool: EnginePool, model_id: str, adapter: str = "", scale: float = 1.0) -> None:
        self.events: list[StreamEvent] = []
        self.request = ask(model_id, adapter, scale)
        self._came = asyncio.Event()
        self._run = asyncio.create_task(self._follow(pool, self.request))

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

    async def reaches(self, stage: LoadStage) -> None:
        """Returns when the load has come so far."""
        await self._until(lambda: any(isinstance(e, LoadProgress) and e.stage == stage for e in self.events))

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


async def make_view_ready(pool: EnginePool, base: HeldEngine, adapter: str, scale: float = 1.0) -> HeldEngine:
    """The view is there and has answered once; its base is there already."""
    panel = Panel(pool, base.model_id, adapter, scale)
    engine = (await base.next_view()).arrive()
    await panel.speaks()
    await panel.go_away()
    return engine

"""The two stand-ins as a Space with ZeroGPU has them, in a rehearsal, with a record of all that its workers say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psutil

from model_registry.registry import Registry
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary
from playground.engines.pooling.reading import Adapters
from playground.engines.zero_gpu.capacity import grant_options
from playground.engines.zero_gpu.duration import Costs
from playground.engines.zero_gpu.place import Placed, place
from playground.engines.zero_gpu.pool import ZeroGpuPool
from playground.engines.zero_gpu.rehearsal import Rehearsal
from playground.engines.zero_gpu.start import offered
from playground.engines.zero_gpu.turn import Said, Task, Turn
from playground.engines.zero_gpu.worker import Crew
from playground.placement.devices import find_device
from playground.settings import Settings
from playground.types import GenerationChunk, GenerationRequest, Message, SamplingParams

PATIENCE_S = 60
"""After which a test fails that would hang."""

MODELS = ("demo-krutrim", "demo-kullm3")
GREETINGS = {"demo-krutrim": "नमस्ते", "demo-kullm3": "안녕하세요"}
ENDLESS = {"temperature": 4.0, "top_p": 1.0, "max_new_tokens": 700}
"""So hot that the end token hardly ever comes: some seconds of answer."""


@cache
def registry() -> Registry:
    return Registry.load()


@cache
def library() -> AdapterLibrary:
    store = AdapterStore(Settings().adapter_store)
    return AdapterLibrary(registry(), (), store, KnownLayers(find_layers), typed_folders=False)


@cache
def placed() -> dict[str, Placed]:
    """Never run in this process, so that tests can share them."""
    specs = [registry().get(model_id) for model_id in MODELS]
    return place(specs, find_device("cpu"), grant_options(), lambda spec: offered(spec, library()))


def costs(**longest: int) -> Costs:
    specs = [one.spec for one in placed().values()]
    return Costs({s.id: s.weights.bytes for s in specs}, {s.id: s.context_length for s in specs}, **longest)


@dataclass
class Space:
    """A pool on a rehearsal. `heard` is all that workers said, `turns` what they were asked."""

    rehearsal: Rehearsal
    pool: ZeroGpuPool
    heard: list[Said] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def last(self, number: int) -> Any:
        """The last that was said about a question."""
        return [said.event for said in self.heard if said.number == number][-1]

    def is_over(self, number: int) -> bool:
        return any(said.number == number and said.is_last for said in self.heard)

    def is_still(self) -> bool:
        """No worker runs."""
        return not any(is_running(pid) for pid in self.rehearsal.workers)


def space(
    task: Task | None = None,
    *,
    adapters: Adapters | None = None,
    reuse: bool = False,
    join_s: float = PATIENCE_S,
    before: Callable[[Turn], object] = lambda turn: None,
) -> Space:
    """before: called as the decorated task is, in the thread of the grant."""
    rehearsal = Rehearsal(reuse=reuse)
    run = rehearsal(task or Crew(placed()).answer, costs())

    def recorded(turn: Turn) -> Iterator[list[Said]]:
        before(turn)
        made.turns.append(turn)
        with closing(run(turn)) as news:  # type: ignore[type-var]
            for said in news:
                made.heard.extend(said)
                yield said

    placements = {model_id: one.placement for model_id, one in placed().items()}
    device, known = find_device("cpu"), adapters or library()
    made = Space(rehearsal, ZeroGpuPool(registry(), placements, device, recorded, known, join_s=join_s))
    return made


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ask(model_id: str, question: str = "", turn_id: str = "turn", **sampling: Any) -> GenerationRequest:
    values = {"temperature": 0.0, "max_new_tokens": 40, "seed": 7, **sampling}
    messages = (Message(role="user", content=question or GREETINGS[model_id]),)
    return GenerationRequest(turn_id=turn_id, model_id=model_id, messages=messages, sampling=SamplingParams(**values))


def both(turn_id: str = "turn", **sampling: Any) -> list[GenerationRequest]:
    return [ask(model_id, turn_id=turn_id, **sampling) for model_id in MODELS]


class Listener:
    """A panel: what came of its stream, chunk by chunk."""

    def __init__(self, pool: Any, request: GenerationRequest) -> None:
        self.chunks: list[GenerationChunk] = []
        self._spoke = asyncio.Event()
        self._task = asyncio.create_task(self._listen(pool, request))

    async def _listen(self, pool: Any, request: GenerationRequest) -> None:
        try:
            async for event in pool.stream(request):
                if isinstance(event, GenerationChunk):
                    self.chunks.append(event)
                    self._spoke.set()
        finally:
            self._spoke.set()

    @property
    def text(self) -> str:
        return "".join(chunk.delta for chunk in self.chunks)

    @property
    def end(self) -> str | None:
        return self.chunks[-1].finish_reason if self.chunks else None

    async def speaks(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._spoke.wait()
        assert self.chunks, "it ended without a word"

    async def done(self) -> str:
        """The whole answer; raises what ended it."""
        async with asyncio.timeout(PATIENCE_S):
            await self._task
        return self.text

    async def go_away(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)

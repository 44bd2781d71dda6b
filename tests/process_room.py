"""Engines in processes of their own for tests: starting and ending them, and what their processes can be told to load.

The functions named `load_...` run in the engine's process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from model_registry.registry import Registry
from model_registry.spec import Dtype, ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.process import ProcessEngine, start_engine
from playground.engines.processes import worker
from playground.errors import AdapterError, ContextFullError, OutOfMemoryError, PlaygroundError
from playground.placement.plan import Placement, Share
from playground.types import (
    DeviceUse,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    SamplingParams,
    ScoredPiece,
)

Report = Callable[[LoadProgress], None]
PATIENCE_S = 60
"""After which a test fails that would hang."""


def tiny_spec(folder: Path, name: str = "one", **sizes: int) -> ModelSpec:
    """A model with random weights in this folder, of which `load_engine` makes a real engine."""
    from tiny import write_tiny_model  # brings torch, which an app's process that is killed need not wait for

    return Registry.load(write_tiny_model(folder, name, **sizes)).get(name)


def on_the_cpu(spec: ModelSpec, dtype: Dtype = "float32", kv_tokens: int = 1024) -> Placement:
    share = Share("cpu", 0, spec.dimensions.layers - 1, spec.weights.bytes, 0, 0)
    return Placement(spec.id, dtype, "none", kv_tokens, (share,), "on the CPU, since the test says so")


def ask(question: str = "hi", request_id: str | None = None, **sampling: Any) -> GenerationRequest:
    values = {"temperature": 0, "max_new_tokens": 20, **sampling}
    ids = {} if request_id is None else {"request_id": request_id}
    messages = (Message(role="user", content=question),)
    return GenerationRequest(model_id="any", messages=messages, sampling=SamplingParams(**values), **ids)


async def start(
    spec: ModelSpec,
    load: worker.Load = worker.load,
    report: Report = lambda _: None,
    *,
    cancelled: threading.Event | None = None,
    placement: Placement | None = None,
    **options: Any,
) -> ProcessEngine:
    place = placement or on_the_cpu(spec)
    event = cancelled or threading.Event()
    try:
        async with asyncio.timeout(PATIENCE_S):
            engine = await asyncio.to_thread(start_engine, spec, place, report, event, load=load, **options)
    finally:
        event.set()  # the thread must end, or this process does not
    assert isinstance(engine, ProcessEngine)
    return engine


@asynccontextmanager
async def started(*arguments: Any, **options: Any) -> AsyncIterator[ProcessEngine]:
    engine = await start(*arguments, **options)
    try:
        yield engine
    finally:
        await engine.close()


async def chunks_of(engine: Any, request: GenerationRequest) -> list[GenerationChunk]:
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in engine.stream(request)]


async def answer(engine: Any, request: GenerationRequest) -> str:
    return "".join(chunk.delta for chunk in await chunks_of(engine, request))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def process_of(engine: ProcessEngine) -> psutil.Process:
    pid = engine._child._process.pid
    assert pid is not None
    return psutil.Process(pid)


def engine_processes(of: int | None = None) -> list[int]:
    """All processes that the fork server of a process has made; of this one where none is named."""
    servers = [child for child in psutil.Process(of).children() if "forkserver" in " ".join(child.cmdline())]
    return [grandchild.pid for server in servers for grandchild in server.children()]


class ScriptedEngine:
    """Raises what its questions and adapters name; says how it stands otherwise. Lives in the engine's process.

    Scoring "slow" takes for ever, which a file "scoring" in the model's folder tells as long as somebody waits.
    Attaching "slow" takes for ever, which a file "attaching" in the adapter's folder tells.
    """

    def __init__(self, model_id: str, folder: Path | None = None) -> None:
        self.model_id = model_id
        self.folder = folder

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        errors: dict[str, Exception] = {
            "long": ContextFullError("The prompt is 7 tokens too long.", excess=7),
            "full": OutOfMemoryError("The device is full: stop other answers."),
            "broken": LookupError("no such thing"),
        }
        yield GenerationChunk("Well, ")
        await asyncio.sleep(0.01)
        if (error := errors.get(request.messages[-1].content)) is not None:
            raise error
        yield GenerationChunk("yes.", "stop")

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        question = request.messages[-1].content
        if question == "slow":
            assert self.folder is not None
            (self.folder / "scoring").touch()
            try:
                await asyncio.Event().wait()
            finally:
                (self.folder / "scoring").unlink()
        errors: dict[str, Exception] = {
            "full": OutOfMemoryError("The device is full: wait for other answers."),
            "broken": LookupError("no such thing"),
        }
        if (error := errors.get(question)) is not None:
            raise error
        return tuple(ScoredPiece(str(token), ()) for token in token_ids)

    async def abort(self, request_id: str) -> None: ...

    async def close(self) -> None: ...

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> ScriptedEngine:
        if adapter.id == "slow":
            (adapter.folder / "attaching").touch()
            threading.Event().wait()
        errors: dict[str, Exception] = {
            "full": OutOfMemoryError("The device is full: close other adapters."),
            "misfit": AdapterError("It does not fit."),
            "broken": LookupError("no such thing"),
        }
        if (error := errors.get(adapter.id)) is not None:
            raise error
        return ScriptedEngine(self.model_id)

    def memory(self) -> tuple[DeviceUse, ...]:
        return (DeviceUse("cpu", 4, 3, 2, 1, 0),)


def load_scripted(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    """Its log goes to a file in the model's folder, too."""
    assert spec.weights.path is not None
    logging.getLogger().addHandler(logging.FileHandler(spec.weights.path / "log"))
    return ScriptedEngine(spec.id, spec.weights.path)


def load_when_allowed(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    """Not before there is a file "go" beside the model's folder."""
    assert spec.weights.path is not None
    report(LoadProgress("weights", 1, 2))
    while not (spec.weights.path.parent / "go").exists():
        time.sleep(0.01)
    return load_scripted(spec, placement, report)


def load_forever(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    """Deaf to everything but a signal that kills."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(LoadProgress("weights", 1, 2))
    threading.Event().wait()
    raise AssertionError("unreachable")


def load_and_count_threads(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    import torch

    report(LoadProgress("start", torch.get_num_threads()))
    return ScriptedEngine(spec.id)


def load_not_known(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    load_scripted(spec, placement, report)
    raise ZeroDivisionError("by nothing")


def load_refused(spec: ModelSpec, placement: Placement, report: Report) -> ScriptedEngine:
    raise PlaygroundError("Not today.")

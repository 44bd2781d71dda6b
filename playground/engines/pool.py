"""Finds or loads the engine for a request, and says how far it is.

Called by the UI and closed by the composition root. One engine a model, and one for each adapter and scale that it is
asked with, loaded once however many panels ask; who comes and who leaves is the roster's business. Its verbs may be
used from any thread and event loop. Knows no gradio.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.engines.pooling.model_status import ModelStatus, Prospects, status_of_resident
from playground.engines.pooling.resident import Resident
from playground.engines.pooling.roster import SHUTTING_DOWN, Launch, Roster
from playground.engines.process import start_engine
from playground.errors import AdapterError, EngineClosedError, EngineError
from playground.placement.plan import Device, PlanOptions
from playground.placement.site import Site
from playground.types import (
    AdapterUse,
    DeviceReport,
    DeviceUse,
    EngineLabel,
    GenerationRequest,
    ScoredPiece,
    StreamEvent,
)

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder

READERS = 8
"""Tokenizers that may be read at once; most of that time is spent waiting for a network."""

INSPECTORS = 32
"""Adapters that may be inspected at once: those of the Hub may take minutes, and nobody else should wait for them."""

T = TypeVar("T")


class Adapters(Protocol):
    """Which adapters there are, and whether one may be used."""

    def choices(self, spec: ModelSpec) -> tuple[AdapterChoice, ...]:
        """What the model's menu offers; cheap, and asks no network."""
        ...

    def check(self, spec: ModelSpec, text: str, revision: str = "") -> CheckedAdapter:
        """Inspect an adapter, named as its user does, at a revision or at the present one; blocks unless it is known.

        Called from any thread. Raises PlaygroundError.
        """
        ...

    def remembered(self, spec: ModelSpec, adapter_id: str, revision: str) -> CheckedAdapter | None:
        """What `check` said of it a while ago, if that still holds; never waits."""
        ...


class EnginePool:
    """
    Args:
        registry: the models that may be asked for.
        devices: what the machine has, and had free before any model came.
        options: what the user asks of placements.
        start: how an engine is made.
        adapters: which may be used; none where it is left out.
    """

    def __init__(
        self,
        registry: Registry,
        devices: Sequence[Device],
        options: PlanOptions = PlanOptions(),  # noqa: B008 (frozen)
        start: Launch = start_engine,
        adapters: Adapters | None = None,
    ) -> None:
        self.registry = registry
        self._devices = devices
        self._adapters = adapters
        site = Site(devices, options)
        self._roster = Roster(site, start)
        self._prospects = Prospects(site)
        self._encoders: dict[str, Future[PromptEncoder]] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="pool-reader")
        self._inspectors = ThreadPoolExecutor(INSPECTORS, thread_name_prefix="inspect-adapter")
        self._reading = threading.Lock()
        """Held to look at `_encoders`, the executors and `_closed`."""
        self._closed = False

    def status(self, model_id: str) -> ModelStatus:
        """What a menu says of the model; asks no network. Raises UnknownModelError."""
        spec = self.registry.get(model_id)
        resident, failure = self._roster.find(spec.id)
        if resident is None:
            return self._prospects.status(spec, failure)
        return status_of_resident(resident)

    def memory(self) -> tuple[DeviceReport, ...]:
        """Every device with what the engines that are there take of it."""
        uses = [(label, use) for label, engine in self._roster.engines() for use in engine.memory()]
        return tuple(_report(device, uses) for device in self._devices)

    def preload(self, model_ids: Sequence[str]) -> None:
        """Begin to load models that will be asked for, placed so that none takes the others' room.

        Where they do not fit together, each that fits is loaded; what fails is logged and told by `status`.

        Raises:
            UnknownModelError, EngineClosedError.
        """
        specs = [self.registry.get(model_id) for model_id in model_ids]
        self._roster.begin([*{spec.id: spec for spec in specs}.values()])

    def expect(self, requests: Sequence[GenerationRequest]) -> None:
        """The requests of one turn will be streamed now: their models are placed together. Raises as `preload`."""
        self.preload([request.model_id for request in requests])

    def cancel(self, model_id: str) -> None:
        """Give up a load: streams that wait for it end with LoadCancelledError. Others are ignored."""
        self._roster.give_up(self.registry.get(model_id).id)

    async def unload(self, model_id: str) -> None:
        """Returns when the model's memory is free. Raises EngineBusyError while it answers or someone waits for it."""
        await _all(self._roster.dismiss(self.registry.get(model_id).id))

    async def encoder(self, model_id: str) -> PromptEncoder:
        """The model's prompt encoder; reads the tokenizer only, never the weights. Raises PlaygroundError."""
        spec = self.registry.get(model_id)
        return await asyncio.shield(asyncio.wrap_future(self._encoder(spec)))

    def adapters(self, model_id: str) -> tuple[AdapterChoice, ...]:
        """What the model's adapter menu offers; asks no network. Raises UnknownModelError."""
        spec = self.registry.get(model_id)
        return self._adapters.choices(spec) if self._adapters is not None else ()

    async def adapter(self, model_id: str, text: str, revision: str = "") -> CheckedAdapter:
        """Inspect an adapter for a model; requests then ask for what its `use` says.

        Args:
            model_id: the model.
            text: a catalog id, owner/name on the Hub, its address there, or a folder.
            revision: the commit, or the fingerprint, that it must be; the present one if left out.

        Raises:
            PlaygroundError: AdapterError where it is not safe or does not fit; says why.
        """
        spec, adapters = self.registry.get(model_id), self._adapters
        if adapters is None:
            raise AdapterError("The playground was started without adapters: choose none.")
        with self._reading:
            self._require_open()
            check = self._inspectors.submit(self._read, partial(adapters.check, spec, text, revision))
        return await asyncio.wrap_future(check)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        """Progress while the model, and then its adapter, is not there, then the chunks of its answer.

        While it runs its model is not unloaded. Closing it ends the answer, and lets the load go on for others.

        Raises:
            PlaygroundError.
        """
        resident = await self._enter(self.registry.get(request.model_id), request.adapter)
        try:
            for one in resident.in_use:
                async with aclosing(one.loading.until_done()) as steps:
                    async for progress in steps:
                        yield progress
            async with aclosing(resident.loading.arrived.result().stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._roster.leave(resident)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`, of the engine that is there for the request: nothing is loaded.

        While it runs its model is not unloaded.

        Raises:
            PlaygroundError: EngineError where the model has left, or its adapter.
        """
        spec = self.registry.get(request.model_id)
        resident = self._roster.visit(EngineLabel(spec.id, request.adapter))
        if resident is None:
            what = f"{spec.name} with {request.adapter.id}" if request.adapter else spec.name
            raise EngineError(f"{what} has been unloaded since this answer: send again to load it.")
        try:
            return await resident.loading.arrived.result().score(request, token_ids)
        finally:
            self._roster.leave(resident)

    async def abort(self, request_id: str) -> None:
        """Stop the answer to a request, wherever it is; unknown ids are ignored."""
        for _, engine in self._roster.engines():
            await engine.abort(request_id)

    async def close(self) -> None:
        """Stop every engine and load, and give the memory back; whoever is being answered or waits is told."""
        with self._reading:
            self._closed = True
            self._readers.shutdown(wait=False)
            self._inspectors.shutdown(wait=False)
        await _all(self._roster.close())

    async def _enter(self, spec: ModelSpec, use: AdapterUse | None) -> Resident:
        if use is None:
            return self._roster.enter(spec)
        known = self._adapters.remembered(spec, use.id, use.revision) if self._adapters else None
        return self._roster.enter(spec, known or await self.adapter(spec.id, use.id, use.revision), use.scale)

    def _encoder(self, spec: ModelSpec) -> Future[PromptEncoder]:
        with self._reading:
            future = self._encoders.get(spec.id)
            if future is None or (future.done() and future.exception() is not None):
                self._require_open()
                future = self._encoders[spec.id] = self._readers.submit(self._read, partial(_read_encoder, spec))
            return future

    def _read(self, read: Callable[[], T]) -> T:
        self._require_open()  # for those that wait when the pool is closed
        return read()

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosedError(SHUTTING_DOWN)


def _read_encoder(spec: ModelSpec) -> PromptEncoder:
    from playground.engines.checkpoints.tokenizers import load_encoder  # transformers: not before the page is there

    return load_encoder(spec)


async def _all(futures: Sequence[Future[None]]) -> None:
    await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))


def _report(device: Device, uses: Sequence[tuple[EngineLabel, DeviceUse]]) -> DeviceReport:
    here = tuple((label, use) for label, use in uses if use.device == device.name)
    if not here:
        return DeviceReport(device.name, device.total_bytes, device.free_bytes)
    # Every engine tells what is free twice a second; of reports that differ, the lower promises no room that is taken.
    return DeviceReport(device.name, here[-1][1].total_bytes, min(use.free_bytes for _, use in here), here)

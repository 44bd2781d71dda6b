"""Finds or loads the engine for a request, and says how far it is.

Called by the UI and closed by the composition root. One engine a model, and one for each adapter and scale that it is
asked with, loaded once however many panels ask; who comes and who leaves is the roster's business. A request that
names a server goes there, and takes no place. Its verbs may be used from any thread and event loop. Knows no gradio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.engines.elsewhere import Elsewhere
from playground.engines.pooling.model_status import ModelStatus, Prospects, status_of_resident
from playground.engines.pooling.reading import Adapters, Reading
from playground.engines.pooling.resident import Resident
from playground.engines.pooling.roster import Launch, Roster
from playground.engines.process import start_engine
from playground.errors import EngineError, PlacementError
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

NOT_OFFERED = "not offered on this page"


class EnginePool:
    """
    Args:
        registry: the models that may be asked for.
        devices: what the machine has, and had free before any model came.
        options: what the user asks of placements.
        start: how an engine is made.
        adapters: which may be used; none where it is left out.
        elsewhere: which servers may be asked; those of the registry where it is left out.
        offered: ids of the models that may be loaded here; all of the registry where it is left out.
    """

    def __init__(
        self,
        registry: Registry,
        devices: Sequence[Device],
        options: PlanOptions = PlanOptions(),  # noqa: B008 (frozen)
        start: Launch = start_engine,
        adapters: Adapters | None = None,
        elsewhere: Elsewhere | None = None,
        offered: Collection[str] | None = None,
    ) -> None:
        self.registry = registry
        self.elsewhere = elsewhere or Elsewhere(registry)
        self._devices = devices
        self._offered = offered
        site = Site(devices, options)
        self._roster = Roster(site, start)
        self._prospects = Prospects(site)
        self._reading = Reading(adapters)

    def status(self, model_id: str) -> ModelStatus:
        """What a menu says of the model; asks no network. Raises UnknownModelError."""
        spec = self.registry.get(model_id)
        resident, failure = self._roster.find(spec.id)
        if resident is None and not self._offers(spec):
            return ModelStatus(spec.id, "not_here", NOT_OFFERED)
        return self._prospects.status(spec, failure) if resident is None else status_of_resident(resident)

    def memory(self) -> tuple[DeviceReport, ...]:
        """Every device with what the engines that are there take of it."""
        uses = [(label, use) for label, engine in self._roster.engines() for use in engine.memory()]
        return tuple(_report(device, uses) for device in self._devices)

    def preload(self, model_ids: Sequence[str]) -> None:
        """Begin to load models that will be asked for, placed so that none takes the others' room.

        Where they do not fit together, each that fits is loaded; what fails is logged and told by `status`.

        Raises:
            UnknownModelError, EngineClosedError; PlacementError where this page does not offer one of them.
        """
        specs = [self.registry.get(model_id) for model_id in model_ids]
        for spec in specs:
            self._require_offered(spec)
        self._roster.begin([*{spec.id: spec for spec in specs}.values()])

    def expect(self, requests: Sequence[GenerationRequest]) -> None:
        """The requests of one turn will be streamed now: their models are placed together. Raises as `preload`."""
        self.preload([request.model_id for request in requests if request.endpoint is None])

    def cancel(self, model_id: str) -> None:
        """Give up a load: streams that wait for it end with LoadCancelledError. Others are ignored."""
        self._roster.give_up(self.registry.get(model_id).id)

    async def unload(self, model_id: str) -> None:
        """Returns when the model's memory is free. Raises EngineBusyError while it answers or someone waits for it."""
        await _all(self._roster.dismiss(self.registry.get(model_id).id))

    async def encoder(self, model_id: str) -> PromptEncoder:
        """The model's prompt encoder; reads the tokenizer only, never the weights. Raises PlaygroundError."""
        return await self._reading.encoder(self.registry.get(model_id))

    def adapters(self, model_id: str) -> tuple[AdapterChoice, ...]:
        """What the model's adapter menu offers; asks no network. Raises UnknownModelError."""
        return self._reading.choices(self.registry.get(model_id))

    async def adapter(self, model_id: str, text: str, revision: str = "") -> CheckedAdapter:
        """Inspect an adapter for a model; requests then ask for what its `use` says.

        Args:
            model_id: the model.
            text: a catalog id, owner/name on the Hub, its address there, or a folder.
            revision: the commit, or the fingerprint, that it must be; the present one if left out.

        Raises:
            PlaygroundError: AdapterError where it is not safe or does not fit; says why.
        """
        return await self._reading.adapter(self.registry.get(model_id), text, revision)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        """Progress while the model, and then its adapter, is not there, then the chunks of its answer.

        While it runs its model is not unloaded. Closing it ends the answer, and lets the load go on for others.

        Raises:
            PlaygroundError.
        """
        spec = self.registry.get(request.model_id)
        if request.endpoint is not None:
            self._reading.require_open()
            async with aclosing(self.elsewhere.stream(spec, request, partial(self.encoder, spec.id))) as said:
                async for chunk in said:
                    yield chunk
            return
        self._require_offered(spec)
        resident = await self._enter(spec, request.adapter)
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
            PlaygroundError: EngineError where the model has left, or its adapter, or a server gave the answer.
        """
        spec = self.registry.get(request.model_id)
        if request.endpoint is not None:
            where = request.endpoint.address
            raise EngineError(f"{where} gave this answer: a server tells probabilities while it answers, or never.")
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
        await self.elsewhere.abort(request_id)

    async def close(self) -> None:
        """Stop every engine and load, and give the memory back; whoever is being answered or waits is told."""
        self._reading.close()
        await asyncio.gather(_all(self._roster.close()), self.elsewhere.close())

    def _offers(self, spec: ModelSpec) -> bool:
        return self._offered is None or spec.id in self._offered

    def _require_offered(self, spec: ModelSpec) -> None:
        if not self._offers(spec):
            raise PlacementError(f"{spec.name} is not offered on this page: choose another model.")

    async def _enter(self, spec: ModelSpec, use: AdapterUse | None) -> Resident:
        if use is None:
            return self._roster.enter(spec)
        return self._roster.enter(spec, await self._reading.used(spec, use), use.scale)


async def _all(futures: Sequence[Future[None]]) -> None:
    await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))


def _report(device: Device, uses: Sequence[tuple[EngineLabel, DeviceUse]]) -> DeviceReport:
    here = tuple((label, use) for label, use in uses if use.device == device.name)
    if not here:
        return DeviceReport(device.name, device.total_bytes, device.free_bytes)
    # Every engine tells what is free twice a second; of reports that differ, the lower promises no room that is taken.
    return DeviceReport(device.name, here[-1][1].total_bytes, min(use.free_bytes for _, use in here), here)

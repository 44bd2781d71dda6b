"""The pool of a Space with ZeroGPU: the same verbs as `EnginePool`, but every turn is one grant of the GPU.

Only the models that lay there when the page was launched can answer; they neither come nor leave. Called by the UI and
closed by the composition root. Its verbs may be used from any thread and event loop. Knows no gradio.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.engines.elsewhere import Elsewhere
from playground.engines.pooling.model_status import ModelStatus
from playground.engines.pooling.reading import Adapters, Reading
from playground.engines.pooling.roster import SHUTTING_DOWN
from playground.engines.zero_gpu.grant import Grant, Part
from playground.engines.zero_gpu.turn import Task
from playground.errors import EngineBusyError, EngineClosedError, EngineError
from playground.placement.plan import Device, Placement
from playground.types import (
    DeviceReport,
    DeviceUse,
    EngineLabel,
    GenerationRequest,
    LoadProgress,
    ScoredPiece,
    StreamEvent,
)

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder

JOIN_S = 10.0
"""Seconds that the panels of a turn have to come after the first: they are asked at once, and come at once."""

PENDING = 256
"""Turns that were announced and have not begun; beyond them, the eldest's panels are answered one by one."""

END_S = 3.0
"""Seconds that grants get to end when the pool is closed."""

NOT_HERE = "not on this Space"


class ZeroGpuPool:
    """
    Args:
        registry: the models that may be asked for.
        placements: where the models lie that can answer, by their ids.
        device: what a grant has, as it was planned for.
        task: answers a turn where the GPU is; decorated.
        adapters: which may be used; none where it is left out.
        elsewhere: which servers may be asked; those of the registry where it is left out.
        join_s: as `JOIN_S`.
    """

    def __init__(
        self,
        registry: Registry,
        placements: Mapping[str, Placement],
        device: Device,
        task: Task,
        adapters: Adapters | None = None,
        elsewhere: Elsewhere | None = None,
        join_s: float = JOIN_S,
    ) -> None:
        self.registry = registry
        self.elsewhere = elsewhere or Elsewhere(registry)
        self._placements = placements
        self._device = device
        self._task = task
        self._reading = Reading(adapters)
        self._join_s = join_s
        self._lock = threading.Lock()
        """Held to look at the next two, and at whose stream has come."""
        self._announced: dict[str, Grant] = {}
        self._running: set[Grant] = set()

    def status(self, model_id: str) -> ModelStatus:
        """See `Pool.status`."""
        spec = self.registry.get(model_id)
        placement = self._placements.get(spec.id)
        if placement is None:
            return ModelStatus(spec.id, "not_here", NOT_HERE)
        return ModelStatus(spec.id, "ready", "ready", None, placement.reason)

    def memory(self) -> tuple[DeviceReport, ...]:
        """What a grant takes of its device, as it was planned: between grants nothing is there to be asked."""
        name, total = self._device.name, self._device.total_bytes
        taken = sum(placement.total_bytes for placement in self._placements.values())
        free = max(0, self._device.free_bytes - taken)
        uses = [
            (EngineLabel(model_id), DeviceUse(name, total, free, share.weight_bytes, share.kv_bytes, 0))
            for model_id, placement in self._placements.items()
            for share in placement.shares
        ]
        return (DeviceReport(name, total, free, tuple(uses)),)

    def preload(self, model_ids: Sequence[str]) -> None:
        """They are there already, or never will be. Raises as `Pool.preload`."""
        for model_id in model_ids:
            self.registry.get(model_id)
        self._reading.require_open()

    def expect(self, requests: Sequence[GenerationRequest]) -> None:
        """The requests of one turn will be streamed now: the first stream asks for the GPU for all of them."""
        self.preload([request.model_id for request in requests])
        ours = [request for request in requests if request.endpoint is None and self._is_here(request)]
        turns = {request.turn_id: [one for one in ours if one.turn_id == request.turn_id] for request in ours}
        with self._lock:
            self._announced = {turn: grant for turn, grant in self._announced.items() if not grant.is_settled}
            for turn_id, together in turns.items():
                self._announced[turn_id] = self._grant(together)
            for turn_id in [*self._announced][:-PENDING]:
                del self._announced[turn_id]

    def cancel(self, model_id: str) -> None:
        """Nothing is ever on its way. Raises as `Pool.cancel`."""
        self.registry.get(model_id)

    async def unload(self, model_id: str) -> None:
        """See `Pool.unload`; here it never can be."""
        spec = self.registry.get(model_id)
        raise EngineBusyError(f"{spec.name} stays: the models of a ZeroGPU Space are those that it was started with.")

    async def encoder(self, model_id: str) -> PromptEncoder:
        """See `Pool.encoder`."""
        return await self._reading.encoder(self.registry.get(model_id))

    def adapters(self, model_id: str) -> tuple[AdapterChoice, ...]:
        """See `Pool.adapters`."""
        return self._reading.choices(self.registry.get(model_id))

    async def adapter(self, model_id: str, text: str, revision: str = "") -> CheckedAdapter:
        """See `Pool.adapter`."""
        return await self._reading.adapter(self.registry.get(model_id), text, revision)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        """See `Pool.stream`. It shares its grant with the requests that were announced with it."""
        spec = self.registry.get(request.model_id)
        self._reading.require_open()
        if request.endpoint is not None:
            async with aclosing(self.elsewhere.stream(spec, request, partial(self.encoder, spec.id))) as said:
                async for chunk in said:
                    yield chunk
            return
        if not self._is_here(request):
            raise EngineError(f"{spec.name} is {NOT_HERE}: choose {self._names()}.")
        grant, part = self._join(request)
        try:
            yield LoadProgress("waiting")
            async with aclosing(part.events()) as events:
                async for event in events:
                    yield event
        finally:
            grant.leave(part)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """Never: it would take another grant for each answer. Raises EngineError."""
        if request.endpoint is not None:
            where = request.endpoint.address
            raise EngineError(f"{where} gave this answer: a server tells probabilities while it answers, or never.")
        raise EngineError(
            "Token probabilities cannot be had on ZeroGPU, where they would cost the visitor another grant of the GPU: "
            "run the playground on a machine of your own to see them."
        )

    async def abort(self, request_id: str) -> None:
        """See `Pool.abort`."""
        with self._lock:
            grants = [*self._announced.values(), *self._running]
        for grant in grants:
            if request_id in grant.parts:
                grant.stop(grant.parts[request_id])
        await self.elsewhere.abort(request_id)

    async def close(self) -> None:
        """See `Pool.close`."""
        self._reading.close()
        with self._lock:
            running, self._announced = [*self._running], {}
        for grant in running:
            grant.stop_all(EngineClosedError(SHUTTING_DOWN))
        ends = [asyncio.to_thread(grant.ended.wait, END_S) for grant in running]
        await asyncio.gather(*ends, self.elsewhere.close())

    def _is_here(self, request: GenerationRequest) -> bool:
        return self.registry.get(request.model_id).id in self._placements

    def _names(self) -> str:
        return " or ".join(self.registry.get(model_id).name for model_id in self._placements)

    def _join(self, request: GenerationRequest) -> tuple[Grant, Part]:
        """What the request has of the grant that it was announced for, which begins, or of one of its own."""
        with self._lock:
            grant = self._announced.get(request.turn_id)
            part = grant.parts.get(request.request_id) if grant else None
            if grant is None or part is None or part.has_reader or part.is_unwanted:
                grant = self._grant([request])
                part = grant.parts[request.request_id]
            part.has_reader = True
            self._running = {one for one in self._running if not one.ended.is_set()}
            is_first = grant not in self._running and not grant.ended.is_set()
            self._running.add(grant)
        if is_first:
            grant.start()
        return grant, part

    def _grant(self, requests: Sequence[GenerationRequest]) -> Grant:
        ids = {request.request_id: self.registry.get(request.model_id).id for request in requests}
        named = [request.model_copy(update={"model_id": ids[request.request_id]}) for request in requests]
        return Grant(named, self._task, self._adapter_of, self._join_s)

    def _adapter_of(self, request: GenerationRequest) -> CheckedAdapter | None:
        """Called in a grant's thread. Raises PlaygroundError."""
        if request.adapter is None:
            return None
        spec: ModelSpec = self.registry.get(request.model_id)
        return asyncio.run(self._reading.used(spec, request.adapter))

"""What the page asks of whoever has the engines: the pool of this machine's, or the one that answers on ZeroGPU.

The UI and the API know pools by this protocol alone. Knows no torch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol

from model_registry.registry import Registry
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.engines.elsewhere import Elsewhere
from playground.engines.pooling.model_status import ModelStatus
from playground.types import DeviceReport, GenerationRequest, ScoredPiece, StreamEvent

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder


class Pool(Protocol):
    """Every verb may be used from any thread and event loop; those that take a model raise UnknownModelError."""

    registry: Registry
    elsewhere: Elsewhere
    """Which servers may be asked."""

    def status(self, model_id: str) -> ModelStatus:
        """What a menu says of the model; asks no network."""
        ...

    def memory(self) -> tuple[DeviceReport, ...]:
        """Every device with what the engines that are there take of it."""
        ...

    def preload(self, model_ids: Sequence[str]) -> None:
        """Begin to load models that will be asked for; returns at once. Raises EngineClosedError."""
        ...

    def expect(self, requests: Sequence[GenerationRequest]) -> None:
        """The requests of one turn will be streamed now. Raises EngineClosedError."""
        ...

    def cancel(self, model_id: str) -> None:
        """Give up a load: streams that wait for it end with LoadCancelledError. Others are ignored."""
        ...

    async def unload(self, model_id: str) -> None:
        """Returns when the model's memory is free. Raises EngineBusyError where it cannot be unloaded now."""
        ...

    async def encoder(self, model_id: str) -> PromptEncoder:
        """The model's prompt encoder; reads the tokenizer only, never the weights. Raises PlaygroundError."""
        ...

    def adapters(self, model_id: str) -> tuple[AdapterChoice, ...]:
        """What the model's adapter menu offers; asks no network."""
        ...

    async def adapter(self, model_id: str, text: str, revision: str = "") -> CheckedAdapter:
        """Inspect an adapter for a model; requests then ask for what its `use` says.

        Args:
            model_id: the model.
            text: a catalog id, owner/name on the Hub, its address there, or a folder.
            revision: the commit, or the fingerprint, that it must be; the present one if left out.

        Raises:
            PlaygroundError: AdapterError where it is not safe or does not fit; says why.
        """
        ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        """Progress while the model is not there, then the chunks of its answer. Closing it ends the answer.

        Raises:
            PlaygroundError.
        """
        ...

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`. Raises PlaygroundError; EngineError where it cannot be had now."""
        ...

    async def abort(self, request_id: str) -> None:
        """Stop the answer to a request, wherever it is; unknown ids are ignored."""
        ...

    async def close(self) -> None:
        """End every answer, and give what they take back; whoever is being answered or waits is told."""
        ...

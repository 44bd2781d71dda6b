"""An engine that another one attached in its process, for the same model with an adapter, as the app sees it.

Made by `process`, which also tells it what its process says. Imports no torch.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from playground.adapters.facts import CheckedAdapter
from playground.engines.base import Engine
from playground.engines.processes.answers import Answers
from playground.engines.processes.wire import Abort, Detach, Order
from playground.errors import AdapterError, EngineClosedError, PlaygroundError
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, ScoredPiece

DETACH_S = 10.0
"""Seconds after which nobody waits for the memory of one that does not end: a step may take long, or hang."""

log = logging.getLogger(__name__)


class AttachedEngine:
    """See `Engine`.

    Attributes:
        number: on the wire.
        devices: what it takes, as its process said last.
        ready: done when it serves, or failed with the reason why it never will.
    """

    def __init__(self, number: int, model_id: str, name: str, answers: Answers, tell: Callable[[Order], None]) -> None:
        """Nobody is told yet.

        Args:
            number: on the wire.
            model_id: the base's.
            name: for people, with the adapter's.
            answers: of its process.
            tell: orders for its process.
        """
        self.model_id = model_id
        self.number = number
        self.devices: tuple[DeviceUse, ...] = ()
        self.ready: Future[None] = Future()
        self._name = name
        self._answers = answers
        self._tell = tell
        self._gone = threading.Event()

    @property
    def alive(self) -> bool:
        """See `Engine.alive`."""
        return self._answers.refusal(self.number) is None

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`."""
        return self._answers.stream(self.number, request)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`."""
        return await self._answers.score(self.number, request, token_ids)

    async def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._tell(Abort(request_id, self.number))

    async def close(self) -> None:
        """See `Engine.close`. What it took is free, unless one step of the model takes very long."""
        self._answers.refuse(EngineClosedError, f"{self._name} was stopped: choose the adapter again.", self.number)
        self._tell(Detach(self.number))
        if not await asyncio.to_thread(self._gone.wait, DETACH_S):
            log.warning("%s does not end: what it takes stays taken until its model leaves", self._name)

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`: a model with one adapter takes no second."""
        raise AdapterError(f"{self._name} takes no second adapter: attach it to the plain model.")

    def memory(self) -> tuple[DeviceUse, ...]:
        """See `Engine.memory`; half a second old at most."""
        return self.devices if self.alive else ()

    def serve(self) -> None:
        """It is there, unless it was given up meanwhile."""
        with suppress(InvalidStateError):
            self.ready.set_result(None)

    def give_up(self, error: PlaygroundError) -> None:
        """It will never serve, if it does not yet."""
        with suppress(InvalidStateError):
            self.ready.set_exception(error)

    def end(self) -> None:
        """It is no more, and what it took is free."""
        self.devices = ()
        self._gone.set()

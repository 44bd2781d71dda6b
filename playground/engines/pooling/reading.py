"""What a pool reads without any engine: tokenizers for prompt encoders, and adapters, which it inspects.

In threads of its own, for both may wait for a network. Its verbs may be used from any thread and event loop. Used by
the pools. Knows no engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.engines.pooling.roster import SHUTTING_DOWN
from playground.errors import AdapterError, EngineClosedError
from playground.types import AdapterUse

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


class Reading:
    """adapters: which may be used; none where it is left out."""

    def __init__(self, adapters: Adapters | None = None) -> None:
        self._adapters = adapters
        self._encoders: dict[str, Future[PromptEncoder]] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="pool-reader")
        self._inspectors = ThreadPoolExecutor(INSPECTORS, thread_name_prefix="inspect-adapter")
        self._lock = threading.Lock()
        """Held to look at `_encoders`, the executors and `_closed`."""
        self._closed = False

    async def encoder(self, spec: ModelSpec) -> PromptEncoder:
        """The model's prompt encoder, read once however many ask. Raises PlaygroundError."""
        return await asyncio.shield(asyncio.wrap_future(self._encoder(spec)))

    def choices(self, spec: ModelSpec) -> tuple[AdapterChoice, ...]:
        """What the model's adapter menu offers; asks no network."""
        return self._adapters.choices(spec) if self._adapters is not None else ()

    async def adapter(self, spec: ModelSpec, text: str, revision: str = "") -> CheckedAdapter:
        """See `Adapters.check`."""
        adapters = self._adapters
        if adapters is None:
            raise AdapterError("The playground was started without adapters: choose none.")
        with self._lock:
            self.require_open()
            check = self._inspectors.submit(self._read, partial(adapters.check, spec, text, revision))
        return await asyncio.wrap_future(check)

    async def used(self, spec: ModelSpec, use: AdapterUse) -> CheckedAdapter:
        """The adapter that a request asks for; waits only where it was not inspected lately. Raises PlaygroundError."""
        known = self._adapters.remembered(spec, use.id, use.revision) if self._adapters else None
        return known or await self.adapter(spec, use.id, use.revision)

    def require_open(self) -> None:
        """Raises EngineClosedError after `close`."""
        if self._closed:
            raise EngineClosedError(SHUTTING_DOWN)

    def close(self) -> None:
        """Nothing is read from now on; what waits for its turn is told."""
        with self._lock:
            self._closed = True
            self._readers.shutdown(wait=False)
            self._inspectors.shutdown(wait=False)

    def _encoder(self, spec: ModelSpec) -> Future[PromptEncoder]:
        with self._lock:
            future = self._encoders.get(spec.id)
            if future is None or (future.done() and future.exception() is not None):
                self.require_open()
                future = self._encoders[spec.id] = self._readers.submit(self._read, partial(_read_encoder, spec))
            return future

    def _read(self, read: Callable[[], T]) -> T:
        self.require_open()  # for those that wait when the pool is closed
        return read()


def _read_encoder(spec: ModelSpec) -> PromptEncoder:
    from playground.engines.checkpoints.tokenizers import load_encoder  # transformers: not before the page is there

    return load_encoder(spec)

"""Engines for a model with adapters, over the weights of the engine that runs it without.

An adapter's weights are read once, however many engines at however many scales use them, and are gone with the last.
Called by the loader, and by engines that are asked to attach. Knows trees and engines; of requests nothing.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock, Thread

from transformers import PreTrainedModel

from playground.adapters.facts import AdapterFacts, CheckedAdapter
from playground.adapters.sharing import shared_copy
from playground.engines.base import Engine
from playground.engines.decoding.failures import drop_frames, is_memory
from playground.engines.in_process import InProcessEngine, PlainWeights, Weights
from playground.errors import AdapterError, EngineClosedError, EngineError, OutOfMemoryError, PlaygroundError
from playground.types import AdapterUse

Start = Callable[[PreTrainedModel, int, Weights], InProcessEngine]
"""A running engine for a tree, with so many tokens of KV cache."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Loaded:
    """An adapter's weights, on a tree that never runs, and those who use them, the eldest first."""

    facts: AdapterFacts
    tree: PreTrainedModel
    sizes: Mapping[str, int]
    users: list[_View] = field(default_factory=list)
    is_kept: bool = False


class SharedWeights(PlainWeights):
    """Of a model whose engine attaches others to itself.

    Args:
        model: that nobody has run yet: what its engine sets, views must not inherit.
        model_id: of the catalog; adapters must have been inspected for it.
        start: makes the engine of a view.
    """

    def __init__(self, model: PreTrainedModel, model_id: str, start: Start) -> None:
        super().__init__(model)
        self._model_id = model_id
        self._start = start
        self._pattern = _pattern(model)
        self._lock = Lock()
        self._closed = False
        self._loaded: list[_Loaded] = []
        self._engines: dict[_View, InProcessEngine] = {}

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`."""
        begin = time.monotonic()
        view = _View(self)
        engine = self._started(view, adapter, scale, kv_tokens)
        if isinstance(engine, Exception):
            view.leave()
            raise engine
        with self._lock:
            if not self._closed:
                self._engines[view] = engine
        if self._closed:
            engine.stop()
            raise _closed()
        log.info("%s: attaching %s took %.2f s", self._model_id, adapter.id, time.monotonic() - begin)
        return engine

    def keep(self, adapter: CheckedAdapter) -> None:
        """Read an adapter's weights now, and hold them to the end: `attach` then need not read them. Raises as it."""
        self._require_own(adapter)
        with self._lock:
            loaded = self._read(adapter)
            loaded.is_kept = True
            self._loaded.append(loaded)

    def copy(self) -> PreTrainedModel:
        """See `Weights.copy`."""
        if isinstance(self._pattern, AdapterError):
            raise EngineError(f"The probabilities of this model's tokens cannot be had: {self._pattern}")
        with self._lock:
            if self._closed:
                raise _closed()
            return shared_copy(self._pattern)

    def copy_for(self, view: _View) -> PreTrainedModel:
        """See `Weights.copy`."""
        from playground.adapters import views

        with self._lock:
            if self._closed or view.loaded is None or view.adapter is None:
                raise _closed()
            return views.rescaled(view.loaded.tree, view.adapter.scale)

    def forget(self, view: _View) -> None:
        """Its engine has ended, or will never be."""
        with self._lock:
            self._engines.pop(view, None)
            for loaded in self._loaded:
                loaded.users = [user for user in loaded.users if user is not view]
            self._loaded = [loaded for loaded in self._loaded if loaded.users or loaded.is_kept]

    def leave(self) -> None:
        """See `Weights.leave`. Who is attaching meanwhile gets no engine."""
        with self._lock:
            self._closed = True
            engines = list(self._engines.values())
        for engine in engines:
            engine.stop()

    def _started(
        self, view: _View, adapter: CheckedAdapter, scale: float, kv_tokens: int
    ) -> InProcessEngine | Exception:
        """The engine, or what went wrong, which keeps no tensor alive."""
        try:
            tree = self._enter(view, adapter, scale)
            view.adapter = adapter.use(scale)
            return self._start(tree, kv_tokens, view)
        except Exception as error:
            if not isinstance(error, PlaygroundError):  # as text: a record of the log would keep the frames
                log.error("%s: attaching %s\n%s", self._model_id, adapter.id, traceback.format_exc())
            drop_frames(error)
            return _full(adapter) if isinstance(error, OutOfMemoryError) or is_memory(error) else error

    def _enter(self, view: _View, adapter: CheckedAdapter, scale: float) -> PreTrainedModel:
        """The tree for a view; one at a time, for none of them may run or change while it is copied."""
        self._require_own(adapter)
        from playground.adapters import views  # `import_peft` says why here

        with self._lock:
            if self._closed:
                raise _closed()
            loaded = next((known for known in self._loaded if known.facts == adapter.facts), None)
            if loaded is None:
                loaded = self._read(adapter)
            tree = views.rescaled(loaded.tree, scale)
            loaded.users.append(view)
            view.loaded = loaded
            if loaded not in self._loaded:
                self._loaded.append(loaded)
        return tree

    def _require_own(self, adapter: CheckedAdapter) -> None:
        if adapter.model_id != self._model_id:
            raise AdapterError(f"{adapter.name} was inspected for {adapter.model_id}: choose it again for this model.")

    def _read(self, adapter: CheckedAdapter) -> _Loaded:
        if isinstance(self._pattern, AdapterError):
            raise AdapterError(str(self._pattern))
        from playground.adapters import views

        tree = views.view_of(self._pattern, adapter.folder, adapter.facts)
        return _Loaded(adapter.facts, tree, views.own_bytes(tree))


class _View:
    """See `Weights`: the base's, of which its own engine tells, and an adapter's, of which the eldest user tells."""

    def __init__(self, base: SharedWeights) -> None:
        self.adapter: AdapterUse | None = None
        self.loaded: _Loaded | None = None
        self._base = base

    def sizes(self) -> Mapping[str, int]:
        """See `Weights.sizes`."""
        loaded = self.loaded
        return loaded.sizes if loaded is not None and loaded.users[:1] == [self] else {}

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Weights.attach`."""
        raise AdapterError("A model that runs with an adapter takes no second one: attach it to the plain model.")

    def copy(self) -> PreTrainedModel:
        """See `Weights.copy`."""
        return self._base.copy_for(self)

    def leave(self) -> None:
        """See `Weights.leave`."""
        self._base.forget(self)
        self.loaded = None


def import_peft() -> None:
    """Begin to import PEFT, which takes seconds, so that the first adapter need not wait for it. Returns at once.

    It brings bitsandbytes along where that is installed, and bitsandbytes asks CUDA, after which no fork could use a
    GPU: so it is never imported before the engine has a process of its own.
    """
    Thread(target=import_module, args=["playground.adapters.views"], name="import-peft", daemon=True).start()


def _pattern(model: PreTrainedModel) -> PreTrainedModel | AdapterError:
    """What views are made from, or why there can be none: a model that cannot share serves all the same."""
    try:
        return shared_copy(model)
    except AdapterError as error:
        drop_frames(error)
        return error


def _full(adapter: CheckedAdapter) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"The device is full: {adapter.name} did not fit beside its model, with a KV cache of its own. Close other "
        "adapters or models and try again."
    )


def _closed() -> EngineClosedError:
    return EngineClosedError("The model was stopped: choose it again.")

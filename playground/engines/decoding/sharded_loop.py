"""The token loop for a model whose layers stand on several devices: one padded batch, a thread of its own.

Each turn reads a piece of the prompts that come in and writes one token of every answer that runs, so a long prompt
holds nobody up. Requests come in strictly in their order, when there is a row and cache for all they may ever need: an
answer that has begun always comes to its end. Knows token ids only, no text. Used by `ShardedEngine`.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch
from transformers import PreTrainedModel

from playground.engines.decoding.device_memory import input_device
from playground.engines.decoding.failures import drop_frames, engine_error, first_line, is_memory
from playground.engines.decoding.inbox import Inbox, Output, wake
from playground.engines.decoding.padded_batch import PaddedBatch, Row, padded_tokens
from playground.engines.decoding.row_sampling import GREEDY, RowSampling
from playground.errors import EngineClosedError, EngineError, OutOfMemoryError

STOP_TIMEOUT_S = 0.9

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Request(Row):
    """A row and whoever reads it. `started`: when it left the queue, in seconds of `perf_counter`."""

    inbox: Inbox = field(kw_only=True)
    started: float = 0.0

    def tell(self, eos_ids: Collection[int]) -> None:
        """Hand on what was generated so far; the reader is yet to be woken."""
        finished = self.generated[-1] in eos_ids or len(self.generated) == self.most
        self.gone = self.gone or finished
        self.inbox.put(Output(self.generated[:], finished, self.started))


Batch = PaddedBatch[Request]


class ShardedLoop:
    """One model's generation thread, running from construction to `stop`; see `TokenLoop`.

    The thread is a daemon: a step that hangs does not keep a process alive that has stopped it.

    Args:
        model: dispatched by accelerate, or on one device.
        eos_ids: tokens that end an answer.
        kv_tokens: tokens of context that the cache holds, padding included.
        max_concurrent: rows of the batch.
        step_tokens: tokens of prompts in one step.

    Raises:
        OutOfMemoryError: a device has no room for a step of one token.
        EngineError: the model does not run.
    """

    def __init__(
        self, model: PreTrainedModel, eos_ids: Collection[int], kv_tokens: int, max_concurrent: int, step_tokens: int
    ) -> None:
        self.capacity = kv_tokens
        self._model = model
        self._eos_ids = eos_ids
        self._max_concurrent = max_concurrent
        self._step_tokens = step_tokens
        self._device = input_device(model)
        self._token_bytes = self._measure()
        self._tickets = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._live: dict[str, Request] = {}
        self._waiting: deque[Request] = deque()
        self._entering: Batch | None = None
        self._running: Batch | None = None
        self._thread = threading.Thread(target=self._run, name="sharded-generation", daemon=True)
        self._thread.start()

    @property
    def accepts(self) -> bool:
        """False once it was stopped; no exception ends the thread."""
        return not self._stopped

    def submit(self, inbox: Inbox, token_ids: Sequence[int], max_new_tokens: int, sampling: RowSampling) -> str:
        """See `TokenLoop.submit`."""
        ticket = str(next(self._tickets))
        row = Request(token_ids, max_new_tokens, sampling, inbox=inbox)
        with self._changed:
            if self._stopped:
                inbox.end(_closed())
                return ticket
            self._live[ticket] = row
            self._waiting.append(row)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: str) -> None:
        """See `TokenLoop.cancel`."""
        with self._changed:
            row = self._live.pop(ticket, None)
            if row is not None:
                row.gone = True
                self._changed.notify()

    def revive(self) -> None:
        """See `TokenLoop.revive`; there is nothing to revive."""
        if self._stopped:
            raise _closed()

    def stop(self) -> None:
        """See `TokenLoop.stop`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(STOP_TIMEOUT_S)

    def kv_use(self) -> dict[str, tuple[int, int]]:
        """See `TokenLoop.kv_use`."""
        used: Counter[str] = Counter()
        for batch in (self._entering, self._running):
            if batch is not None:
                used.update(batch.cache_bytes())
        reserved = 0 if self._stopped else self.capacity
        return {device: (used[device], size * reserved) for device, size in self._token_bytes.items()}

    @torch.no_grad()
    def _measure(self) -> Counter[str]:
        """Bytes of cache that a token takes on each device, from a first step, which also shows that the model runs."""
        try:
            batch = PaddedBatch(self._model, self._device, [Row([0], 1, GREEDY)])
            batch.choose(batch.read(1))
        except Exception as error:
            if is_memory(error):
                raise OutOfMemoryError(
                    "The device is full: there is no room for a step of the model beside its weights. "
                    "Close other programs or models."
                ) from error
            raise EngineError(f"The model cannot be run over several devices: {first_line(error)}.") from error
        return batch.cache_bytes()

    @torch.no_grad()
    def _run(self) -> None:
        while self._wait():
            error = _attempt(self._turn)
            if error is not None:
                self._fail([*_rows(self._entering), *_rows(self._running)], error)
                self._entering = self._running = None
        self._entering = self._running = None
        with self._changed:
            for row in self._live.values():
                row.inbox.end(_closed())
        torch.cuda.empty_cache()

    def _wait(self) -> bool:
        """Until there is something to do: False where that is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting or self._entering or self._running)
            return not self._stopped

    def _turn(self) -> None:
        self._leave()
        self._admit()
        if self._entering is not None:
            self._read(self._entering)
            self._leave()
        if self._running is not None:
            self._write(self._running)

    def _leave(self) -> None:
        with self._changed:
            self._waiting = deque(row for row in self._waiting if not row.gone)
        for batch in (self._entering, self._running):
            if batch is not None:
                batch.drop_gone()
        self._entering = self._entering if _rows(self._entering) else None
        self._running = self._running if _rows(self._running) else None

    def _admit(self) -> None:
        """The first of those that wait, and those behind it whose prompts fit into the same step."""
        if self._entering is not None:
            return
        rows: list[Request] = []
        while self._waiting and self._may_enter(rows, self._waiting[0]):
            rows.append(self._waiting.popleft())
            rows[-1].started = perf_counter()
        if rows:
            self._entering = PaddedBatch(self._model, self._device, rows)

    def _may_enter(self, rows: Sequence[Request], row: Request) -> bool:
        together = [*rows, row]
        if rows and len(together) * max(len(r.prompt) for r in together) > self._step_tokens:
            return False
        everyone = [*_rows(self._running), *together]
        return len(everyone) <= self._max_concurrent and padded_tokens(everyone) <= self.capacity

    def _read(self, batch: Batch) -> None:
        """A piece of the prompts; where it is the last, the first tokens too."""

        def step() -> None:
            logits = batch.read(min(batch.unread, max(1, self._step_tokens // len(batch.rows))))
            if not batch.unread:
                self._tell(batch, batch.choose(logits))

        error = _attempt(step)
        if error is not None:
            self._entering = None
            self._fail(batch.rows, error)
        elif not batch.unread:
            self._entering = None
            self._join(batch)

    def _join(self, batch: Batch) -> None:
        running = self._running

        def join() -> None:
            batch.drop_gone()
            if batch.rows and running is not None:
                running.join(batch)

        error = _attempt(join)
        if error is not None:
            self._fail(batch.rows, error)
            if running is not None:
                running.part()
        elif batch.rows and running is None:
            self._running = batch

    def _write(self, batch: Batch) -> None:
        """One token for every answer. Where there is no memory, the longest gives its place up: all pay its padding."""
        error = _attempt(lambda: self._tell(batch, batch.choose(batch.write())))
        if error is not None:
            batch.rewind()
            staying = [row for row in batch.rows if not row.gone] or batch.rows
            self._fail([max(staying, key=lambda row: row.length)] if is_memory(error) else batch.rows, error)

    def _tell(self, batch: Batch, tokens: Sequence[int]) -> None:
        batch.add(tokens)
        for row in batch.rows:
            row.tell(self._eos_ids)
        wake(row.inbox for row in batch.rows)

    def _fail(self, rows: Sequence[Request], error: Exception) -> None:
        for row in rows:
            row.gone = True
            row.inbox.end(engine_error(error))
        torch.cuda.empty_cache()


def _attempt(work: Callable[[], None]) -> Exception | None:
    """What went wrong, without the tracebacks."""
    try:
        work()
    except Exception as error:
        log.exception("a step of the model failed")
        drop_frames(error)
        return error
    return None


def _rows(batch: Batch | None) -> list[Request]:
    return batch.rows if batch is not None else []


def _closed() -> EngineClosedError:
    return EngineClosedError("The engine was stopped: choose the model again.")

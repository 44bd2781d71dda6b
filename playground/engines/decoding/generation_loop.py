"""transformers' continuous batching, as the engine sees it: submit, cancel, revive, stop.

Everything that leans on the inside of `ContinuousBatchingManager` (transformers 5.23.0) is here, in step_graphs.py, in
survival.py and, for the sampling, in seeded_sampling.py; a new version is checked against these four. Owns the
generation thread. Knows token ids only, no text. Used by `BatchedEngine`, as its `TokenLoop`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Sequence
from queue import Empty
from time import perf_counter
from typing import Any, cast

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
    ContinuousMixin,
    OutputRouter,
)
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestState, RequestStatus
from transformers.generation.continuous_batching.scheduler import Scheduler

from playground.engines.decoding.failures import engine_error, first_line, is_memory
from playground.engines.decoding.inbox import Inbox, Output, wake
from playground.engines.decoding.row_sampling import RowSampling
from playground.engines.decoding.seeded_sampling import SeededSampling
from playground.engines.decoding.step_graphs import record_one_answer, record_small_steps
from playground.engines.decoding.survival import survive_full_device
from playground.errors import EngineClosedError, EngineError, OutOfMemoryError

STOP_TIMEOUT_S = 0.9
REVIVE_TIMEOUT_S = 5.0


class GenerationLoop:
    """One model's generation thread, running from construction to `stop`.

    Args:
        model: on one device, with an attention implementation that continuous batching takes (sdpa, flash or eager).
        sampling: how the next tokens are chosen.
        config: sizes of the cache and of the batch.
        eos_ids: tokens that end an answer.

    Attributes:
        capacity: tokens that one request may have, prompt and answer together, before the cache is full of it alone.

    Raises:
        OutOfMemoryError: the device has no room for the cache.
        EngineError: continuous batching does not take this model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: SeededSampling,
        config: ContinuousBatchingConfig,
        eos_ids: Collection[int],
    ) -> None:
        self._tickets = itertools.count()
        self._lock = threading.Lock()
        self._stopped = False
        self._router = _Router()
        try:
            with torch.accelerator.device_index(model.device.index):
                self._manager = self._build_manager(model, sampling, config, eos_ids)
                # Not the generation thread, which would only log it, but whoever loads the model sees a full device.
                processor = self._build_processor(model, sampling)
        except Exception as error:
            if is_memory(error):
                raise OutOfMemoryError(
                    "The device is full: the KV cache did not fit beside the weights. Close other programs or models."
                ) from error
            raise EngineError(f"The model cannot be batched: {first_line(error)}.") from error
        sampling.stream = processor.inputs_and_outputs.compute_stream
        self.capacity: int = infer_max_single_request_tokens(processor.cache)
        _mend_cancellation(processor.scheduler)
        survive_full_device(self._manager)
        self._manager.start()

    def _build_manager(
        self,
        model: PreTrainedModel,
        sampling: SeededSampling,
        config: ContinuousBatchingConfig,
        eos_ids: Collection[int],
    ) -> ContinuousBatchingManager:
        generation_config = GenerationConfig(do_sample=False, eos_token_id=sorted(eos_ids) or -1)
        manager = cast(ContinuousMixin, model).init_continuous_batching(generation_config, config)
        resolved = manager.continuous_batching_config
        compiled = resolved.varlen_compile_config or resolved.decode_compile_config
        sampling.static = bool(any(resolved.cuda_graph_booleans) or compiled)
        # The manager hands both on when it builds its batch processor, so this is the moment to put in our own.
        manager.logit_processor = sampling
        manager.output_router = self._router
        return manager

    def _build_processor(self, model: PreTrainedModel, sampling: SeededSampling) -> ContinuousBatchProcessor:
        processor = self._manager.batch_processor = self._manager._create_batch_processor()
        record_small_steps(processor, sampling)
        self._manager.warmup()
        context = getattr(model.config.get_text_config(), "max_position_embeddings", processor.cache.max_tokens_read)
        record_one_answer(processor, model, sampling, context)
        return processor

    @property
    def accepts(self) -> bool:
        """False once it was stopped or an exception ended the thread."""
        return self._manager.background_thread_status.can_accept_new_requests() is None

    def submit(self, inbox: Inbox, token_ids: Sequence[int], max_new_tokens: int, sampling: RowSampling) -> str:
        """Queue a request; its outputs, or its failure, go to the inbox. The ticket returned cancels it."""
        ticket = str(next(self._tickets))
        self._router.inboxes[ticket] = inbox
        if self.accepts:  # asked first, because the manager logs a warning
            self._manager.add_request(
                list(token_ids), request_id=ticket, max_new_tokens=max_new_tokens, streaming=True, sampling=sampling
            )
        # Asked again: a thread that fails empties the queue once, and this request may have come after that.
        if not self.accepts:
            inbox.end(EngineError("The engine failed as the request came: try again."))
        return ticket

    def cancel(self, ticket: str) -> None:
        """Forget the request, wherever it is: its place in the batch and its cache are free before the next step."""
        if self._router.inboxes.pop(ticket, None) is not None:
            self._manager.cancel_request(ticket)

    def revive(self) -> None:
        """Start the thread again after a failure; blocks for the moment that the failed one takes to end.

        Raises:
            EngineClosedError: it was stopped.
            EngineError: the failed thread does not end.
        """
        with self._lock:
            if self._stopped:
                raise EngineClosedError("The engine was stopped: choose the model again.")
            if self.accepts:
                return
            self._manager.join(perf_counter(), timeout=REVIVE_TIMEOUT_S)
            if self._manager.is_running():
                raise EngineError("The engine has failed and does not end: restart the playground.")
            self._discard_queued()
            self._manager.start()

    def stop(self) -> None:
        """End the thread, answers and all, within a second unless a step of the model takes longer. May be repeated."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._manager.stop(block=True, timeout=STOP_TIMEOUT_S, hard_stop=True)

    def kv_use(self) -> dict[str, tuple[int, int]]:
        """Bytes of KV cache by device: those that hold contexts now, and all. From any thread.

        Prefixes of ended requests, which are kept for others as long as nobody needs the room, are not in use.
        """
        processor = self._manager.batch_processor
        if processor is None:  # stopped
            return {}
        cache = cast(Any, processor).cache
        kept = sum(len(a.ledger.cached_blocks) * a.bytes_per_block for a in cache.cache_allocators.values())
        free = cache.compute_free_capacity(relative=False) + kept
        used = cache.num_sectors * cache.bytes_per_sector - int(free)
        return {str(cache.cache_tensor.device): (max(used, 0), cache.cache_tensor.nbytes)}

    def _discard_queued(self) -> None:
        """Requests that came too late to be failed with the others: their streams have ended."""
        while True:
            try:
                self._manager.input_queue.get_nowait()
            except Empty:
                return


class _Router(OutputRouter):
    """Brings outputs to inboxes.

    The manager's own sends a whole batch to the event loop of one of its requests, fails with that loop when it is
    closed, and keeps what nobody waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inboxes: dict[str, Inbox] = {}

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        reached = []
        for output in outputs:
            inbox = self.inboxes.get(output.request_id)
            if inbox is not None:
                inbox.put(Output(output.generated_tokens, output.is_finished(), output.lifespan[0]))
                reached.append(inbox)
        wake(reached)

    def fail_and_deliver(self, state: RequestState, error: Exception) -> None:
        state.status = RequestStatus.FAILED
        inbox = self.inboxes.pop(state.request_id, None)
        if inbox is not None:
            inbox.end(engine_error(error))


def _mend_cancellation(scheduler: Scheduler) -> None:
    """Do what transformers 5.23 leaves undone when it drops cancelled requests.

    - With asynchronous batching such a request may still be in the batch that runs; when that comes back, a page that
      it has filled is looked up in a block table that is gone, and the thread dies. As a finished one it is passed by.
    - While the cache is full no waiting request is admitted until one *finishes*; where all that run are cancelled,
      that is never.
    """
    clear = scheduler.clear_cancelled_requests

    def clear_and_mend() -> list[RequestState]:
        cancelled = clear()
        for state in cancelled:
            state.status = RequestStatus.FINISHED
        if cancelled:
            scheduler.block_new_requests = False
        return cancelled

    setattr(scheduler, "clear_cancelled_requests", clear_and_mend)  # noqa: B010 (mypy: a method)

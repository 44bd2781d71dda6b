"""A full device in the middle of a step: one request gives up, the others go on from where they were.

transformers 5.23 ends its generation thread at any exception and fails everybody. Works on the inside of its manager,
for the generation loop; knows no stream and no text.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
)
from transformers.generation.continuous_batching.requests import RequestState, RequestStatus

from playground.engines.decoding.failures import drop_frames, is_memory

log = logging.getLogger(__name__)


def survive_full_device(manager: ContinuousBatchingManager) -> None:
    """From now on a step that runs out of memory costs one request and not the thread. Before the thread starts.

    Each time one request fails, so a device that stays full ends them all, one by one, and then the loop waits.
    """
    run_step = manager._generation_loop_body

    def run_or_relieve(batch_processor: ContinuousBatchProcessor, bootstrapping: bool) -> bool:
        failure: Exception | None = None
        try:
            return run_step(batch_processor, bootstrapping)
        except Exception as error:
            if not (is_memory(error) and batch_processor.scheduler.active_requests):
                raise
            failure = error
        # Outside of the handler, which would keep the frames, and they the tensors of the step.
        drop_frames(failure)
        _relieve(batch_processor, failure)
        return True

    setattr(manager, "_generation_loop_body", run_or_relieve)  # noqa: B010 (mypy: a method)


def _relieve(processor: ContinuousBatchProcessor, failure: Exception) -> None:
    """Fail one active request, queue the others before all that wait, and give back what the step had taken."""
    scheduler = processor.scheduler
    active = list(scheduler.active_requests.values())
    victim = max(reversed(active), key=_burden)
    log.warning("the device is full (%s): request %s of %d fails", failure, victim.request_id, len(active))
    # Also waits for a step that still runs. Its tokens are dropped; those who go on make them again.
    processor.inputs_and_outputs.reset()
    restarted = [state for state in active if state is not victim]
    for state in active:
        scheduler.finish_request(state.request_id)
    for state in reversed(restarted):
        # Prompt and answer so far become a prompt, as when the cache is full; finished pages are found in the cache.
        again = state.create_equivalent_initial_request()
        state._status = RequestStatus.FINISHED
        scheduler.waiting_requests[again.request_id] = again
        scheduler.waiting_requests_order.appendleft(again.request_id)
    scheduler.starved_requests = []
    scheduler.block_new_requests = False  # it waits for one that runs to finish, and none runs
    processor._handle_request_error(failure, victim)
    gc.collect()
    module: Any = torch.get_device_module()
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def _burden(state: RequestState) -> tuple[bool, int]:
    """Who fails: reading a prompt takes more than writing on, and more of it more; the newest of equals."""
    return not state.generated_tokens, len(state.initial_tokens) + len(state.generated_tokens)

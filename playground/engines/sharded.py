"""The engine for one model over several devices, as accelerate's `dispatch_model` spreads it.

Also takes a model on one device, or one whose weights lie partly in the CPU's memory or on disk. Made by the loader,
asked through the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from playground.engines.decoding.sharded_loop import ShardedLoop
from playground.engines.in_process import InProcessEngine, PlainWeights, Weights, end_tokens
from playground.prompting.encoder import PromptEncoder


@dataclass(frozen=True, slots=True)
class ShardedOptions:
    """Sizes.

    kv_tokens: tokens of context that the KV cache holds, over all requests, padding included: side by side, each
        request takes as many as the longest of them may come to. A request never gets more than this for itself.
    max_concurrent: requests in the batch at a time.
    max_waiting: requests beyond them that may wait; more are refused with EngineBusyError.
    step_tokens: tokens of prompts in one step. Longer prompts are read in pieces of this size, between which the other
        answers go on.
    """

    kv_tokens: int = 8192
    max_concurrent: int = 16
    max_waiting: int = 48
    step_tokens: int = 512


class ShardedEngine(InProcessEngine):
    """See `InProcessEngine` for what it promises."""

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: PromptEncoder,
        *,
        options: ShardedOptions | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Run a first step, which measures the cache, and start the model's generation thread.

        Args:
            model: the engine's alone until `close`.
            encoder: its prompt encoder.
            options: sizes.
            weights: the model's; those of an engine that takes no adapters if left out.

        Raises:
            OutOfMemoryError: a device has no room for a step beside the weights.
            EngineError: the model does not run.
        """
        options = options or ShardedOptions()
        eos_ids = end_tokens(model, encoder)
        loop = ShardedLoop(model, eos_ids, options.kv_tokens, options.max_concurrent, options.step_tokens)
        places = options.max_concurrent + options.max_waiting
        super().__init__(encoder, loop, eos_ids, places, weights or PlainWeights(model))

"""The engine for one model on one device: all its requests in one batch that changes from token to token.

Puts transformers' continuous batching behind the `Engine` protocol. Made by the loader, asked through the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.utils.generic import is_flash_attention_requested

from playground.engines.decoding.generation_loop import GenerationLoop
from playground.engines.decoding.seeded_sampling import SeededSampling
from playground.engines.in_process import InProcessEngine, PlainWeights, Weights, end_tokens
from playground.prompting.encoder import PromptEncoder

FLASH_PAGE = 256
SMALL_PAGE = 32


@dataclass(frozen=True, slots=True)
class BatchedOptions:
    """Sizes, all fixed beforehand: inferring them from the free memory takes seconds and takes most of it; and speed.

    kv_tokens: tokens of context that the KV cache holds, over all requests. When it is full, requests wait, or give
        their place up and are read again later; none is lost. A request never gets more than this for itself.
    max_concurrent: requests in the batch at a time.
    max_waiting: requests beyond them that may wait; more are refused with EngineBusyError.
    max_batch_tokens: tokens in one step. Longer prompts are read in pieces of this size, between which the other
        answers go on.
    cuda_graphs: whether steps that only write on are recorded once and replayed; None: where the device can.
    async_batching: whether a step is prepared while the one before it runs; None: where the device can.
    """

    kv_tokens: int = 8192
    max_concurrent: int = 16
    max_waiting: int = 48
    max_batch_tokens: int = 512
    cuda_graphs: bool | None = None
    async_batching: bool | None = None


class BatchedEngine(InProcessEngine):
    """See `InProcessEngine` for what it promises."""

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: PromptEncoder,
        *,
        options: BatchedOptions | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Start the model's generation thread.

        Args:
            model: on one device. It is the engine's alone until `close`: a forward pass writes to the model's config
                (transformers 5.23), so one in another thread would get wrong attention masks, for good.
            encoder: its prompt encoder.
            options: sizes.
            weights: the model's; those of an engine that takes no adapters if left out.

        Raises:
            OutOfMemoryError: the device has no room for the KV cache.
            EngineError: continuous batching does not take this model.
        """
        options = options or BatchedOptions()
        eos_ids = end_tokens(model, encoder)
        places = options.max_concurrent + options.max_waiting
        sampling = SeededSampling(model.config.get_text_config().vocab_size, places, model.device)
        loop = GenerationLoop(model, sampling, _config(model, options), eos_ids)
        super().__init__(encoder, loop, eos_ids, places, weights or PlainWeights(model))


def _config(model: PreTrainedModel, options: BatchedOptions) -> ContinuousBatchingConfig:
    # Flash attention reads the cache in pages of 256 tokens. Else small ones waste less and share shorter prefixes.
    page = FLASH_PAGE if is_flash_attention_requested(model.config) else SMALL_PAGE
    # Left to itself, the manager does neither where the attention reads a mask, as sdpa's does.
    on_gpu = model.device.type == "cuda"
    return ContinuousBatchingConfig(
        page_size=page,
        num_blocks=-(-options.kv_tokens // page),
        max_batch_tokens=options.max_batch_tokens,
        max_requests_per_batch=options.max_concurrent,
        use_cuda_graph=on_gpu if options.cuda_graphs is None else options.cuda_graphs,
        use_async_batching=on_gpu if options.async_batching is None else options.async_batching,
        auto_switch_to_flash=False,  # the loader chooses the attention
    )

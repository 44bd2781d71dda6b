"""Which steps are recorded as CUDA graphs: those that only write on, padded to few sizes. Prompts run unrecorded.

Left alone, transformers 5.23 records every step, padded to 64 tokens and to 16,384 of cache where the attention reads
a mask: such a step reads more cache than weights. It records each size as it comes up, which holds an answer up for
the time of three steps. Works on the inside of its ModelRunner, for the generation loop; knows no request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchProcessor
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingAsyncIOs
from transformers.generation.continuous_batching.utils import attn_mask_is_needed, pad_to_pow2

from playground.engines.decoding.seeded_sampling import SeededSampling

LEAST_KV = 512
"""Tokens of cache that the smallest recorded step reads."""

log = logging.getLogger(__name__)


def record_small_steps(processor: ContinuousBatchProcessor, sampling: SeededSampling) -> None:
    """Record steps of no more tokens than there may be requests, and no others. Before the processor's warm-up.

    Tokens are padded to powers of two. So is the cache that is read, the step's own tokens included: an answer of a
    whole context meets four sizes, 512 to 4,096, and the rows are aligned for the kernels.
    """
    runner: Any = processor.model_runner
    if not any(processor.cb_config.cuda_graph_booleans):
        return
    most = processor.cb_config.max_requests_per_batch
    assert most is not None
    pad, choose = runner.maybe_pad_inputs, runner._get_forward_fn
    tokens = 0

    def maybe_pad_inputs(num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool) -> tuple[int, int]:
        nonlocal tokens
        tokens, kv = num_q_tokens, max_kv_read
        if use_decode_fast_path:  # flash attention reads the cache by itself
            tokens, kv = pad(num_q_tokens, max_kv_read, use_decode_fast_path)
        elif num_q_tokens <= most:
            tokens = pad_to_pow2(num_q_tokens, most)
            kv = padded_cache(tokens, max_kv_read, processor.cache.max_tokens_read)
        return tokens, kv

    def get_forward_fn(use_block_table: bool) -> tuple[Callable[..., None], bool]:
        forward, recorded = choose(use_block_table)
        return forward, recorded and tokens <= most

    runner.maybe_pad_inputs, runner._get_forward_fn = maybe_pad_inputs, get_forward_fn
    for io in _recording_ios(processor):
        io._get_graph_key = partial(_graph_key, io, sampling, masked=attn_mask_is_needed(processor.config))


@torch.no_grad()
def record_one_answer(
    processor: ContinuousBatchProcessor, model: PreTrainedModel, sampling: SeededSampling, context: int
) -> None:
    """Record what one answer of up to `context` tokens meets, now rather than in its middle. After the warm-up.

    Where the device or a driver records nothing, steps run unrecorded from here on, and the log says so.
    """
    runner: Any = processor.model_runner
    if not any(processor.cb_config.cuda_graph_booleans):
        return
    ios = processor.inputs_and_outputs
    for _ in _recording_ios(processor):
        for sampling.every_stage in (False, True):
            for length in _lengths(processor, context):
                runner.run_one_warmup(model=model, num_q_tokens=1, max_kv_read=length)
        sampling.every_stage = False
        if isinstance(ios, ContinuousBatchingAsyncIOs):
            ios.swap_io_pairs()
    processor.cache.reset()
    if not all(io.graphs._storage for io in _recording_ios(processor)):
        log.warning("no step of the model could be recorded as a CUDA graph: it runs, but slower")
        runner.use_cuda_graph_varlen = runner.use_cuda_graph_decode = False


def padded_cache(tokens: int, cached: int, most: int) -> int:
    """Tokens of cache to read beside a step's own, so that both together are a power of two; at least `cached`."""
    return max(cached, min(pad_to_pow2(cached + tokens, 2 * most, LEAST_KV) - tokens, most))


def _lengths(processor: ContinuousBatchProcessor, context: int) -> list[int | None]:
    """Tokens in the cache, one of each size; None is for flash attention, whose steps are of one size."""
    if not attn_mask_is_needed(processor.config):
        return [None] if processor.cache.max_decode_fast_path_length > 0 else []
    most = min(context, processor.cache.max_tokens_read)
    lengths: list[int | None] = []
    size = LEAST_KV
    while not lengths or size < 2 * most:
        lengths.append(min(size, most) - 1)
        size *= 2
    return lengths


def _graph_key(io: Any, sampling: SeededSampling, *, masked: bool) -> tuple[Any, ...]:
    """Sizes, and which stages of sampling run: a recording does what was asked for when it was made."""
    # The longest row is for flash attention: under a mask it would only multiply the recordings.
    longest = () if masked or io.use_block_table else tuple(io.max_length_k.values())
    return (io.num_q_tokens, io.max_kv_read, io.use_block_table, sampling.stages, *longest)


def _recording_ios(processor: ContinuousBatchProcessor) -> list[Any]:
    """Inputs and outputs that own recordings: two sets of them take turns in asynchronous batching."""
    ios = processor.inputs_and_outputs
    return [pair.device_io for pair in ios.io_pairs] if isinstance(ios, ContinuousBatchingAsyncIOs) else [ios]

"""What models take, against the architectures themselves and against transformers' own reckoning."""

from __future__ import annotations

import pytest
import torch
from simulated_memory import CUDA_CONTEXT, architecture, blocks_of, outside, stored_blocks
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import PagedAttentionMemoryHandler
from transformers.generation.continuous_batching.cache_allocators import FULL_ATTENTION
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.placement.footprint import BATCH_TOKENS, Footprint, footprint
from playground.placement.plan import Quantisation

REGISTRY = Registry.load()
FULL_SIZE = [spec for spec in REGISTRY if not spec.is_stand_in]


def weights(sizes: Footprint) -> int:
    return sizes.first_bytes + sizes.layers * sizes.block_bytes + sizes.last_bytes


@pytest.mark.parametrize("spec", FULL_SIZE, ids=lambda spec: spec.id)
def test_catalog_figures_are_those_of_the_architecture(spec: ModelSpec) -> None:
    model, sizes = architecture(spec.id), footprint(spec)
    assert sizes.layers == len(blocks_of(model))
    assert weights(sizes) == pytest.approx(2 * model.num_parameters(), rel=1e-3)
    assert weights(sizes) == pytest.approx(spec.weights.bytes, rel=3e-3)
    tables = [2 * numbers for name, numbers in outside(model, blocks_of(model)) if "norm" not in name]
    assert sorted(tables) == sorted(filter(None, [sizes.first_bytes, sizes.last_bytes]))


@pytest.mark.parametrize("quantisation", ["none", "8-bit", "4-bit"])
@pytest.mark.parametrize("spec", FULL_SIZE, ids=lambda spec: spec.id)
def test_a_block_is_not_smaller_than_it_will_be(spec: ModelSpec, quantisation: Quantisation) -> None:
    stored = max(map(sum, stored_blocks(spec.id, quantisation, 2)))
    planned = footprint(spec, quantisation).block_bytes
    assert stored <= planned * 1.0005
    assert planned <= stored * 1.035


@pytest.mark.parametrize("contexts", [1, 4])
@pytest.mark.parametrize("name", ["krutrim-1-instruct", "kullm3"])
def test_cache_and_working_memory_are_what_continuous_batching_reckons_with(name: str, contexts: int) -> None:
    spec = REGISTRY.get(name)
    sizes = footprint(spec)
    planned = contexts * sizes.layers * sizes.kv_bytes + sizes.working_bytes(contexts)
    reckoned = continuous_batching_bytes(spec, contexts * spec.context_length)
    assert reckoned + CUDA_CONTEXT <= planned
    assert planned <= reckoned + 1_100_000_000, "no gigabyte is wasted"


def continuous_batching_bytes(spec: ModelSpec, kv_tokens: int, page: int = 32) -> int:
    """transformers' `compute_memory_footprint` for the engine's sizes, with SDPA and asynchronous batching."""
    config = architecture(spec.id).config
    config._attn_implementation = "sdpa"
    batching = ContinuousBatchingConfig(
        page_size=page,
        num_blocks=kv_tokens // page,
        max_batch_tokens=BATCH_TOKENS,
        max_requests_per_batch=16,
        use_async_batching=True,
        max_blocks_per_request=0,
        max_memory_percent=0.9,
    )
    width = find_num_key_value_heads(config) * find_head_dim(config)
    page_bytes = 2 * config.num_hidden_layers * width * page * 2
    handler = PagedAttentionMemoryHandler(
        config,
        batching,
        torch.float16,
        page_bytes,
        page,
        page_bytes,
        [FULL_ATTENTION],
        model_supports_logits_to_keep=True,
    )
    return handler.compute_memory_footprint(BATCH_TOKENS, kv_tokens // page)


def test_the_cpu_computes_in_float32() -> None:
    spec = REGISTRY.get("kullm3")
    on_gpu, on_cpu = footprint(spec), footprint(spec, "none", "cpu")
    assert (on_gpu.dtype, on_cpu.dtype) == ("float16", "float32")
    assert weights(on_cpu) == 2 * weights(on_gpu)
    assert on_cpu.kv_bytes == 2 * on_gpu.kv_bytes


def test_shares_add_up_to_the_whole() -> None:
    sizes = footprint(REGISTRY.get("kullm3"))
    first, last = sizes.share("cuda:0", 0, 29, 2), sizes.share("cuda:1", 30, 47, 2)
    assert first.total_bytes + last.total_bytes == sizes.whole_bytes(2) + sizes.working_bytes(2)
    assert first.weight_bytes == sizes.first_bytes + 30 * sizes.block_bytes
    assert last.weight_bytes == sizes.last_bytes + 18 * sizes.block_bytes


def test_an_offloaded_model_keeps_its_whole_cache_on_the_gpu() -> None:
    sizes = footprint(REGISTRY.get("kullm3"))
    here, away = sizes.offloaded_shares("cuda:0", "cpu", 10, 2)
    assert (here.first_layer, here.last_layer, away.first_layer, away.last_layer) == (0, 9, 10, 47)
    assert (here.kv_bytes, away.kv_bytes) == (2 * 48 * sizes.kv_bytes, 0)
    assert here.weight_bytes + away.weight_bytes == weights(sizes)
    assert here.working_bytes == sizes.working_bytes(2) + sizes.block_bytes

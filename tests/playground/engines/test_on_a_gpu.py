"""What only a GPU can show; `python -m pytest -m gpu`. Models are small, so any card will do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine_room import GREEDY, QUESTIONS, answer, ask, assert_free, make_engine, processor, tiny_llama
from transformers import PreTrainedModel

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from playground.engines.batched import BatchedEngine
from playground.errors import OutOfMemoryError

pytestmark = pytest.mark.gpu

WAYS: dict[str, dict[str, bool]] = {
    "as it comes": {},
    "recorded": {"cuda_graphs": True, "async_batching": False},
    "ahead": {"cuda_graphs": False, "async_batching": True},
}
PLAIN = {"cuda_graphs": False, "async_batching": False}
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.3}
MIB = 1 << 20


def krutrim(**sizes: Any) -> KrutrimForCausalLM:
    torch.manual_seed(0)
    attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi": True}
    defaults = {"d_model": 256, "n_heads": 4, "n_layers": 2, "vocab_size": 400, "max_seq_len": 256}
    config = KrutrimConfig(
        **{**defaults, **sizes}, attn_config=attention, no_bias=True, initializer_range=0.2, eos_token_id=0
    )
    model = KrutrimForCausalLM(config).eval()
    model.lm_head.weight.data[0] = 0
    return model


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    assert torch.cuda.is_available(), "these tests were asked for, and there is no GPU"
    torch.cuda.set_per_process_memory_fraction(1.0)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


async def answers(engine: BatchedEngine, requests: list[Any], *, together: bool) -> list[str]:
    if together:
        return await asyncio.gather(*(answer(engine, request) for request in requests))
    return [await answer(engine, request) for request in requests]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", [tiny_llama, krutrim])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
async def test_answers_are_as_without_graphs_alone_and_together(
    way: str, build: Any, sampling: dict[str, float]
) -> None:
    """In float32, where another batch shape decides nothing but exact ties."""
    requests = [ask(q, max_new_tokens=60, **{**sampling, "seed": n}) for n, q in enumerate(QUESTIONS)]
    plain = make_engine(build().cuda(), **PLAIN)
    expected = await answers(plain, requests, together=False)
    await plain.close()
    engine = make_engine(build().cuda(), **WAYS[way])
    assert await answers(engine, requests, together=False) == expected
    assert await answers(engine, requests, together=True) == expected
    await assert_free(engine)
    await engine.close()


async def test_steps_are_recorded_before_the_first_request() -> None:
    engine = make_engine(tiny_llama().cuda())
    ios = [pair.device_io for pair in processor(engine).inputs_and_outputs.io_pairs]
    sizes = [set(io.graphs._storage) for io in ios]
    assert all(sizes)
    await answer(engine, ask(max_new_tokens=100, **GREEDY))
    assert [set(io.graphs._storage) for io in ios] == sizes
    await engine.close()


@pytest.mark.parametrize("length", [7, 250])
def test_bfloat16_logits_are_those_of_float32_on_the_cpu(length: int) -> None:
    low = krutrim(d_model=768, n_heads=8, n_layers=4).to(torch.bfloat16)
    ids = torch.randint(1, 400, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = low.cuda()(ids.cuda()).logits.float().cpu()
        ours = low.float().cpu()(ids).logits
    assert (theirs - ours).norm() / ours.norm() < 2e-2


async def test_closing_frees_the_memory() -> None:
    def taken() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    async def live() -> None:
        model: PreTrainedModel = krutrim(d_model=1024, n_layers=4).cuda()
        engine = make_engine(model)
        await answer(engine, ask(**GREEDY))
        assert taken() > before + 50 * MIB
        await engine.close()

    await live()  # the first one makes the libraries' own buffers
    before = taken()
    await live()
    assert taken() <= before + MIB


async def test_a_device_that_is_really_full_costs_one_request() -> None:
    """A prompt of a size that the rest of the memory does not carry, beside one that is being answered."""
    engine = make_engine(krutrim(d_model=1024, max_seq_len=8192).cuda(), context=8192, kv_tokens=8192,
                         max_batch_tokens=8192)  # fmt: skip
    small = ask(max_new_tokens=100, **GREEDY)
    expected = await answer(engine, small)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 24 * MIB) / total)
    got = await asyncio.gather(answer(engine, small), answer(engine, ask("z" * 7000, **GREEDY)), return_exceptions=True)
    assert isinstance(got[1], OutOfMemoryError), got[1]
    assert got[0] == expected
    await assert_free(engine)
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(await answer(engine, ask("z" * 7000, **GREEDY))) > 0
    await engine.close()

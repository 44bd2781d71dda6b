"""A spread model is the same model: logits and answers, for each architecture, with layers that come from disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from engine_room import (
    GREEDY,
    QUESTIONS,
    answer,
    ask,
    generated,
    make_engine,
    spread,
    tiny_gpt_neox,
    tiny_krutrim,
    tiny_llama,
)
from transformers import PreTrainedModel

from playground.engines.decoding.device_memory import weight_bytes
from playground.errors import EngineError, OutOfMemoryError

Maker = Callable[[], PreTrainedModel]
SAMPLED = {"temperature": 1.1, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2, "max_new_tokens": 30}


@pytest.fixture(params=[tiny_llama, tiny_gpt_neox, tiny_krutrim])
def make(request: pytest.FixtureRequest) -> Maker:
    return request.param


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model(input_ids=ids, attention_mask=mask, position_ids=positions).logits


def test_the_logits_are_the_undispatched_models(make: Maker, tmp_path: Path) -> None:
    ids = torch.randint(1, 400, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    there = spread(make(), tmp_path)
    assert {parameter.device.type for parameter in there.parameters()} == {"cpu", "meta"}
    assert torch.equal(logits(there, ids, mask), logits(make(), ids, mask))


def test_tied_weights_are_one_tensor_where_they_are_held(tmp_path: Path) -> None:
    model = spread(tiny_krutrim(), tmp_path)
    assert model.lm_head.weight is model.transformer.wte.weight
    block = sum(parameter.nbytes for parameter in tiny_krutrim().transformer.blocks[0].parameters())
    assert weight_bytes(model) == {"cpu": model.lm_head.weight.nbytes + block}


def test_weights_held_back_in_memory_are_counted_there() -> None:
    whole = weight_bytes(tiny_llama())
    model = cpu_offload(tiny_llama(), execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert weight_bytes(model) == whole


async def test_greedy_is_generate(make: Maker, tmp_path: Path) -> None:
    engine = make_engine(spread(make(), tmp_path), kind="sharded", max_batch_tokens=16)
    answers = await asyncio.gather(*(answer(engine, ask(question, **GREEDY)) for question in QUESTIONS))
    await engine.close()
    assert answers == [generated(make(), question, max_new_tokens=24) for question in QUESTIONS]


async def test_a_seed_gives_the_batched_engines_answer(make: Maker, tmp_path: Path) -> None:
    requests = [ask(question, seed=n, **SAMPLED) for n, question in enumerate(QUESTIONS)]
    requests += [ask(question, seed=n, temperature=0.8, max_new_tokens=30) for n, question in enumerate(QUESTIONS)]
    requests += [ask(question, repetition_penalty=1.5, max_new_tokens=30, **GREEDY) for question in QUESTIONS]
    batched, sharded = make_engine(make()), make_engine(spread(make(), tmp_path), kind="sharded")
    expected = await asyncio.gather(*(answer(batched, request) for request in requests))
    answers = await asyncio.gather(*(answer(sharded, request) for request in requests))
    await asyncio.gather(batched.close(), sharded.close())
    assert answers == expected
    assert len(set(answers)) == len(answers)


def test_a_model_that_does_not_run_is_said_when_the_engine_is_made() -> None:
    model = tiny_llama()
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel\nfor this")))
    with pytest.raises(EngineError, match=r"cannot be run over several devices: no kernel\."):
        make_engine(model, kind="sharded")


def test_a_full_device_is_said_when_the_engine_is_made() -> None:
    model = tiny_llama()
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(OutOfMemoryError, match="no room for a step of the model beside its weights"):
        make_engine(model, kind="sharded")

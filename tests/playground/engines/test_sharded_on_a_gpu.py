"""A model over two kinds of devices that both compute, and one that is offloaded; `python -m pytest -m gpu`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from accelerate import dispatch_model
from engine_room import (
    GREEDY,
    QUESTIONS,
    answer,
    ask,
    generated,
    make_engine,
    shares,
    tiny_gpt_neox,
    tiny_krutrim,
    tiny_llama,
)
from transformers import PreTrainedModel

from playground.engines.checkpoints.device_map import block_names, device_map
from playground.types import DeviceUse

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[tiny_llama, tiny_gpt_neox, tiny_krutrim])
def make(request: pytest.FixtureRequest) -> Callable[[], PreTrainedModel]:
    return request.param


def halved(model: PreTrainedModel) -> PreTrainedModel:
    """The first layer on the GPU, the others on the CPU, which computes them."""
    where = device_map(model, shares(("cuda:0", 1), ("cpu", len(block_names(model)) - 1)))
    return dispatch_model(model, where, main_device="cpu", skip_keys=model._skip_keys_device_placement)


def offloaded(model: PreTrainedModel) -> PreTrainedModel:
    """The same, but the GPU computes all, and fetches what it needs."""
    where = device_map(model, shares(("cuda:0", 1), ("cpu", len(block_names(model)) - 1)))
    return dispatch_model(model, where, skip_keys=model._skip_keys_device_placement)


async def answers_and_memory(model: PreTrainedModel) -> tuple[list[str], dict[str, DeviceUse]]:
    engine = make_engine(model, kind="sharded", max_batch_tokens=16)
    answers = await asyncio.gather(*(answer(engine, ask(question, **GREEDY)) for question in QUESTIONS))
    memory = {use.device: use for use in engine.memory()}
    await engine.close()
    return answers, memory


async def test_each_layer_keeps_its_contexts_where_it_stands(make: Callable[[], PreTrainedModel]) -> None:
    answers, memory = await answers_and_memory(halved(make()))
    assert answers == [generated(make(), question, max_new_tokens=24) for question in QUESTIONS]
    layers = len(block_names(make()))
    assert set(memory) == {"cpu", "cuda:0"}
    assert memory["cpu"].kv_bytes == (layers - 1) * memory["cuda:0"].kv_bytes > 0
    assert memory["cpu"].weight_bytes > 0 < memory["cuda:0"].weight_bytes


async def test_offloaded_layers_keep_their_contexts_on_the_gpu(make: Callable[[], PreTrainedModel]) -> None:
    answers, memory = await answers_and_memory(offloaded(make()))
    assert answers == [generated(make(), question, max_new_tokens=24) for question in QUESTIONS]
    assert memory["cuda:0"].kv_bytes > memory["cpu"].kv_bytes == 0
    assert memory["cpu"].weight_bytes > 0 < memory["cuda:0"].weight_bytes

"""What an engine says it takes: its weights, shared ones once, and the cache that its contexts hold right now."""

from __future__ import annotations

import asyncio

import pytest
import torch
from engine_room import GREEDY, Gate, ask, chunks_of, make_engine, tiny_llama, until
from torch import nn

from playground.engines.decoding.device_memory import device_use, weight_bytes
from playground.types import DeviceUse


def only(uses: tuple[DeviceUse, ...]) -> DeviceUse:
    (use,) = uses
    return use


def test_weights_are_counted_once_and_buffers_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("table", torch.zeros(10))
    model.register_buffer("nowhere", torch.zeros(1000, device="meta"))
    assert weight_bytes(model) == {"cpu": 4 * 16 + 4 * 10}


def test_a_view_counts_as_the_memory_behind_it() -> None:
    model = nn.Module()
    whole = torch.zeros(100)
    model.register_buffer("left", whole[:10])
    model.register_buffer("right", whole[10:])
    assert weight_bytes(model) == {"cpu": 400}


def test_devices_are_in_order_and_may_have_weights_or_cache_alone() -> None:
    use = only(device_use({}, {"cpu": (3, 5)}))
    assert (use.weight_bytes, use.kv_used_bytes, use.kv_bytes) == (0, 3, 5)
    assert 0 < use.free_bytes < use.total_bytes


async def test_the_cache_in_use_grows_with_an_answer_and_comes_back() -> None:
    model = tiny_llama()
    gate = Gate(model)
    engine = make_engine(model, kv_tokens=2048)
    idle = only(engine.memory())
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, KV heads, head width, float32
    assert (idle.device, idle.kv_used_bytes) == ("cpu", 0)
    assert idle.weight_bytes == sum(parameter.nbytes for parameter in model.parameters()) + sum(
        buffer.nbytes for buffer in model.buffers()
    )
    assert 2048 * per_token <= idle.kv_bytes < 2200 * per_token
    gate.shut()
    tasks = [asyncio.create_task(chunks_of(engine, ask(q * 70, max_new_tokens=20, **GREEDY))) for q in "ab"]
    for _ in range(5):
        await gate.step()
    assert 2 * 70 * per_token <= only(engine.memory()).kv_used_bytes <= 2 * 128 * per_token
    gate.open()
    await asyncio.gather(*tasks)
    await until(lambda: only(engine.memory()).kv_used_bytes == 0)
    await engine.close()
    assert only(engine.memory()).kv_bytes == 0


@pytest.mark.parametrize("count", [50])
async def test_the_memory_may_be_asked_from_another_thread_while_it_answers(count: int) -> None:
    engine = make_engine()
    task = asyncio.create_task(chunks_of(engine, ask(max_new_tokens=200, **GREEDY)))
    for _ in range(count):
        assert only(await asyncio.to_thread(engine.memory)).kv_used_bytes >= 0
    await task
    await engine.close()

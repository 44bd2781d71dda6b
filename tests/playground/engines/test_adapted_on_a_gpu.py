"""Adapters attached on a GPU, where steps are recorded as CUDA graphs while others run; `python -m pytest -m gpu`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_room import adapters, attach, base_engine, using
from engine_room import GREEDY, QUESTIONS, answer, ask, make_engine, tiny_llama
from shared_weights import with_peft

from playground.adapters.facts import CheckedAdapter
from playground.errors import OutOfMemoryError

pytestmark = pytest.mark.gpu

PLAIN = {"cuda_graphs": False, "async_batching": False}
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    assert torch.cuda.is_available(), "these tests were asked for, and there is no GPU"
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture
def adapter(tmp_path: Path) -> CheckedAdapter:
    return adapters(tmp_path, tiny_llama(), ["q_proj", "v_proj"])[0]


def allocated() -> int:
    gc.collect()
    return torch.cuda.memory_allocated()


async def alone(model: Any, requests: list[Any]) -> list[str]:
    engine = make_engine(model, **PLAIN)
    said = [await answer(engine, request) for request in requests]
    await engine.close()
    return said


async def test_attaching_while_the_base_answers_changes_no_answer(adapter: CheckedAdapter) -> None:
    plain = tiny_llama().cuda()
    requests = [ask(question, max_new_tokens=150, **GREEDY) for question in QUESTIONS]
    expected = await alone(deepcopy(plain), requests)
    adapted = await alone(with_peft(deepcopy(plain), adapter.folder), requests)
    engine = base_engine(plain)
    running = [asyncio.create_task(answer(engine, request)) for request in requests]
    view = await attach(engine, adapter)
    beside = [asyncio.create_task(answer(view, using(request, adapter))) for request in requests]
    second = await attach(engine, adapter, 0.0)
    assert await asyncio.gather(*running) == expected
    assert await asyncio.gather(*beside) == adapted
    assert [await answer(second, using(request, adapter, 0.0)) for request in requests] == expected
    await engine.close()


async def test_what_a_view_took_comes_back(adapter: CheckedAdapter) -> None:
    engine = base_engine(tiny_llama().cuda())
    await (await attach(engine, adapter)).close()  # what kernels keep for themselves, they keep now
    before = allocated()
    view = await attach(engine, adapter, 1.0, 100_000)
    assert allocated() - before > 20 * MIB
    await answer(view, using(ask(**GREEDY), adapter))
    await view.close()
    del view
    assert allocated() == before
    await engine.close()


async def test_a_full_gpu_costs_the_adapter_and_nothing_else(adapter: CheckedAdapter) -> None:
    engine = base_engine(tiny_llama().cuda())
    expected = await answer(engine, ask(**GREEDY))
    await (await attach(engine, adapter)).close()
    before = allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 256 * MIB) / total)
    with pytest.raises(OutOfMemoryError, match="did not fit beside its model"):
        await attach(engine, adapter, 1.0, 10_000_000)
    assert allocated() == before
    assert await answer(engine, ask(**GREEDY)) == expected
    assert (await attach(engine, adapter)).alive
    await engine.close()

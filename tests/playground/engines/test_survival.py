"""Out of memory in a step costs one request; what it held is free, and the others' answers do not change."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    answer,
    ask,
    assert_free,
    make_engine,
    tiny_llama,
    until,
)
from transformers import LlamaForCausalLM

from playground.engines.batched import BatchedEngine
from playground.errors import OutOfMemoryError
from playground.types import GenerationRequest

FULL = "The device is full: stop other answers, shorten the prompt"
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.3}


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
async def engine(model: LlamaForCausalLM) -> AsyncIterator[BatchedEngine]:
    engine = make_engine(model, max_concurrent=8)
    yield engine
    await engine.close()


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@contextmanager
def full(
    model: torch.nn.Module, when: Callable[[int, int], bool], error: Callable[[], Exception]
) -> Iterator[list[Any]]:
    """The last layer has no memory for a step where `when(number, tokens)`; yields tensors that such steps had."""
    tensors: list[weakref.ref[torch.Tensor]] = []
    number = iter(range(10_000))

    def fail(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if when(next(number), inputs[0].shape[1]):
            tensors.append(weakref.ref(inputs[0]))
            raise error()

    handle = model.model.layers[-1].register_forward_pre_hook(fail)
    yield tensors
    handle.remove()


async def outcomes(engine: BatchedEngine, requests: list[GenerationRequest]) -> list[Any]:
    return await asyncio.gather(*(answer(engine, request) for request in requests), return_exceptions=True)


@pytest.mark.parametrize(
    "error",
    [
        out_of_memory,
        MemoryError,
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
async def test_one_request_fails_and_the_others_go_on(
    engine: BatchedEngine, model: LlamaForCausalLM, sampling: dict[str, float], error: Callable[[], Exception]
) -> None:
    requests = [ask(q, max_new_tokens=32, **{**sampling, "seed": n}) for n, q in enumerate(QUESTIONS[:6])]
    alone = [await answer(engine, request) for request in requests]
    with full(model, lambda step, tokens: step == 20, error) as tensors:
        together = await outcomes(engine, requests)
    failed = [result for result in together if isinstance(result, Exception)]
    assert [type(result) for result in failed] == [OutOfMemoryError]
    assert str(failed[0]).startswith(FULL)
    assert [got for got in together if got not in failed] == [
        said for said, got in zip(alone, together, strict=True) if got not in failed
    ]
    gc.collect()
    assert len(tensors) == 1
    assert tensors[0]() is None, "something keeps the tensors of the step"
    await assert_free(engine)
    assert await answer(engine, requests[0]) == alone[0]


async def test_the_longest_of_those_that_write_fails(engine: BatchedEngine, model: LlamaForCausalLM) -> None:
    requests = [ask("short", **GREEDY), ask("z" * 90, **GREEDY), ask("not so long", **GREEDY)]
    alone = [await answer(engine, request) for request in requests]
    decoding = False

    def all_write(step: int, tokens: int) -> bool:
        nonlocal decoding
        now, decoding = not decoding and tokens == 3, decoding or tokens == 3
        return now

    with full(model, all_write, out_of_memory):
        together = await outcomes(engine, requests)
    assert isinstance(together[1], OutOfMemoryError)
    assert [together[0], together[2]] == [alone[0], alone[2]]


async def test_a_prompt_that_is_too_large_to_read_fails_alone(model: LlamaForCausalLM) -> None:
    """As long as it is there every step is too large; those who write go on, and so does who waits behind it."""
    engine = make_engine(model, max_concurrent=3)
    writers = [ask(q, max_new_tokens=120, **{**SAMPLED, "seed": n}) for n, q in enumerate(QUESTIONS[:2])]
    waiting = ask("I came last", **GREEDY)
    alone = [await answer(engine, request) for request in [*writers, waiting]]
    gate = Gate(model)
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, request)) for request in writers]
    for _ in range(5):
        await gate.step()
    with full(model, lambda step, tokens: tokens > 100, out_of_memory):
        huge = asyncio.create_task(answer(engine, ask("x" * 200, **GREEDY)))
        tasks.append(asyncio.create_task(answer(engine, waiting)))
        await until(lambda: len(engine._admitted) == 4)
        gate.open()
        with pytest.raises(OutOfMemoryError, match=FULL):
            await huge
        assert await asyncio.gather(*tasks) == alone
    await assert_free(engine)
    await engine.close()


async def test_a_device_that_stays_full_ends_them_all_and_the_next_is_served(
    engine: BatchedEngine, model: LlamaForCausalLM
) -> None:
    requests = [ask(q, **GREEDY) for q in QUESTIONS]
    alone = [await answer(engine, request) for request in requests]
    thread = engine._loop._manager._generation_thread
    with full(model, lambda step, tokens: True, out_of_memory):
        together = await outcomes(engine, requests)
    assert [type(result) for result in together] == [OutOfMemoryError] * len(QUESTIONS)
    await assert_free(engine)
    assert await outcomes(engine, requests) == alone
    assert engine._loop._manager._generation_thread is thread, "it should not have ended"


async def test_a_request_may_be_restarted_more_than_once(engine: BatchedEngine, model: LlamaForCausalLM) -> None:
    requests = [ask(q, max_new_tokens=50, **{**SAMPLED, "seed": n}) for n, q in enumerate(QUESTIONS)]
    alone = [await answer(engine, request) for request in requests]
    with full(model, lambda step, tokens: step in (3, 4, 20, 35), out_of_memory):
        together = await outcomes(engine, requests)
    survivors = [(said, got) for said, got in zip(alone, together, strict=True) if isinstance(got, str)]
    assert len(survivors) == len(QUESTIONS) - 4
    assert all(said == got for said, got in survivors)
    await assert_free(engine)


async def test_what_was_said_before_stays(engine: BatchedEngine, model: LlamaForCausalLM) -> None:
    request = ask(max_new_tokens=200, **GREEDY)
    whole = await answer(engine, request)
    pieces: list[str] = []

    async def listen() -> None:
        async for chunk in engine.stream(request):
            pieces.append(chunk.delta)

    def some_were_read(step: int, tokens: int) -> bool:
        time.sleep(0.002)  # lets the reader come to it
        return len(pieces) > 2

    with full(model, some_were_read, out_of_memory), pytest.raises(OutOfMemoryError, match=FULL):
        await listen()
    said = "".join(pieces)
    assert said
    assert whole.startswith(said)
    await assert_free(engine)


async def test_memory_in_use_is_as_before(engine: BatchedEngine, model: LlamaForCausalLM) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    await answer(engine, ask(**GREEDY))
    before = tensors()
    for _ in range(3):
        with full(model, lambda step, tokens: step == 10, out_of_memory), pytest.raises(OutOfMemoryError):
            await answer(engine, ask(**GREEDY))
    assert tensors() == before


async def test_a_full_device_is_in_the_log(
    engine: BatchedEngine, model: LlamaForCausalLM, log: pytest.LogCaptureFixture
) -> None:
    with full(model, lambda step, tokens: step == 10, out_of_memory), pytest.raises(OutOfMemoryError):
        await answer(engine, ask(**GREEDY))
    assert "Tried to allocate 2.00 GiB" in log.text

"""A step that fails costs those whom it must, with a sentence; the others get their answers, and the engine goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
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
    generated,
    make_engine,
    rows_in,
    tiny_llama,
    until,
)
from transformers import LlamaForCausalLM

from playground.engines.decoding import padded_cache
from playground.engines.decoding.padded_batch import PaddedBatch
from playground.engines.sharded import ShardedEngine
from playground.errors import ContextFullError, EngineBusyError, EngineError, OutOfMemoryError

FULL = "The device is full: stop other answers"


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_llama()


def full() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def expected(question: str, count: int = 24) -> str:
    return generated(tiny_llama(), question, max_new_tokens=count)


@contextmanager
def failing(model: LlamaForCausalLM, error: Exception, when: Callable[[tuple[int, ...]], bool]) -> Iterator[None]:
    """The second layer raises once, when (rows, columns) are such; the first has taken the step's keys and values."""

    def fail(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if when(tuple(args[0].shape[:2])):
            handle.remove()
            raise error

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    yield
    handle.remove()


async def side_by_side(engine: ShardedEngine, gate: Gate, questions: list[str]) -> list[asyncio.Task[str]]:
    """Answers to all of these, running in one batch, held before a step."""
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, ask(question, **GREEDY))) for question in questions]
    while len(rows_in(engine._loop._running)) < len(questions):
        await gate.step()
    return tasks


async def test_a_device_that_is_full_while_writing_costs_the_longest_alone(model: LlamaForCausalLM) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded")
    tasks = await side_by_side(engine, gate, ["x", "z" * 60, "Hello there"])
    error = full()
    with failing(model, error, lambda shape: shape == (3, 1)):
        gate.open()
        with pytest.raises(OutOfMemoryError, match=FULL) as raised:
            await tasks[1]
    assert raised.value.__cause__ is error
    assert error.__traceback__ is None, "the frames would keep the step's tensors"
    assert [await tasks[0], await tasks[2]] == [expected("x"), expected("Hello there")]
    assert await answer(engine, ask("z" * 60, **GREEDY)) == expected("z" * 60)
    await assert_free(engine)
    await engine.close()


async def test_a_device_that_stays_full_ends_one_after_the_other(model: LlamaForCausalLM) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded")
    tasks = await side_by_side(engine, gate, ["x", "z" * 60, "Hello there"])
    handle = model.model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(full()))
    gate.open()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    handle.remove()
    assert [type(end) for end in ends] == [OutOfMemoryError] * 3
    assert await answer(engine, ask("x", **GREEDY)) == expected("x")
    await assert_free(engine)
    await engine.close()


async def test_a_device_that_is_full_while_reading_costs_the_newcomer_alone(model: LlamaForCausalLM) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded")
    (first,) = await side_by_side(engine, gate, ["x"])
    newcomer = asyncio.create_task(answer(engine, ask("z" * 60, **GREEDY)))
    await until(lambda: len(engine._loop._waiting) == 1)
    with failing(model, full(), lambda shape: shape[1] > 1):
        gate.open()
        with pytest.raises(OutOfMemoryError, match=FULL):
            await newcomer
    assert await first == expected("x")
    await assert_free(engine)
    await engine.close()


@pytest.mark.parametrize("part", [1, 2, 3, 4], ids=lambda part: f"tensor {part} of 4")
async def test_a_device_that_is_full_while_joining_costs_the_newcomer_alone(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """Keys and values of two layers: those put together before are taken apart again."""
    gate = Gate(model)
    engine = make_engine(model, kind="sharded")
    first, second = await side_by_side(engine, gate, ["x", "Hello there"])
    newcomer = asyncio.create_task(answer(engine, ask("z" * 60, **GREEDY)))
    await until(lambda: len(engine._loop._waiting) == 1)
    gather, calls = padded_cache._gathered, iter(range(1, 100))

    def gathered(*args: Any) -> torch.Tensor:
        if next(calls) == part:
            raise full()
        return gather(*args)

    monkeypatch.setattr(padded_cache, "_gathered", gathered)
    gate.open()
    with pytest.raises(OutOfMemoryError, match=FULL):
        await newcomer
    assert [await first, await second] == [expected("x"), expected("Hello there")]
    await assert_free(engine)
    await engine.close()


@pytest.mark.parametrize("error", [RuntimeError("a kernel\nfell over"), KeyError("a kernel")], ids=str)
async def test_any_other_failure_costs_those_who_run_and_not_those_who_wait(
    model: LlamaForCausalLM, error: Exception
) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded", max_concurrent=2)
    running = await side_by_side(engine, gate, ["x", "Hello there"])
    waits = asyncio.create_task(answer(engine, ask("one two", **GREEDY)))
    await until(lambda: len(engine._loop._waiting) == 1)
    with failing(model, error, lambda shape: shape == (2, 1)):
        gate.open()
        for task in running:
            with pytest.raises(EngineError, match=r"The engine failed: '?a kernel'?\. Try again") as raised:
                await task
            assert type(raised.value) is EngineError
    assert await waits == expected("one two")
    await assert_free(engine)
    await engine.close()


async def test_a_failure_between_the_steps_ends_no_thread(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded")
    running = await side_by_side(engine, gate, ["x", "Hello there"])
    drop = PaddedBatch.drop_gone

    def once(batch: PaddedBatch[Any]) -> None:
        monkeypatch.setattr(PaddedBatch, "drop_gone", drop)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(PaddedBatch, "drop_gone", once)
    gate.open()
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert [str(end) for end in ends] == ["The engine failed: out of luck. Try again; the log has the details."] * 2
    assert await answer(engine, ask("x", **GREEDY)) == expected("x")
    await assert_free(engine)
    await engine.close()


async def test_too_many_requests_are_refused_and_the_rest_served(model: LlamaForCausalLM) -> None:
    gate = Gate(model)
    engine = make_engine(model, kind="sharded", max_concurrent=2, max_waiting=1)
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, ask(question, **GREEDY))) for question in QUESTIONS[:3]]
    await until(lambda: gate.holds)
    with pytest.raises(EngineBusyError, match="too many requests waiting: try again"):
        await answer(engine, ask())
    gate.open()
    assert await asyncio.gather(*tasks) == [expected(question) for question in QUESTIONS[:3]]
    await engine.close()


async def test_a_prompt_larger_than_the_whole_cache_says_by_how_much(model: LlamaForCausalLM) -> None:
    engine = make_engine(model, kind="sharded", kv_tokens=64)
    with pytest.raises(ContextFullError, match=r"has 70 tokens, and TINY can take 63 .* shorten it by 7"):
        await answer(engine, ask("z" * 70))
    assert await answer(engine, ask("z" * 40, max_new_tokens=100, **GREEDY)) == expected("z" * 40, 24)
    await engine.close()

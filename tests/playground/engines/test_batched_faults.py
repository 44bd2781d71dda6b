"""What goes wrong in an engine reaches whoever asked, as a sentence; the others, and the next, are served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import torch
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    answer,
    ask,
    assert_free,
    chunks_of,
    encoder,
    generated,
    make_engine,
    processor,
    tiny_llama,
    until,
)
from transformers import LlamaForCausalLM

from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.errors import ContextFullError, EngineBusyError, EngineError, OutOfMemoryError, PromptError
from playground.types import GenerationChunk


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
async def engine(model: LlamaForCausalLM) -> AsyncIterator[BatchedEngine]:
    engine = make_engine(model)
    yield engine
    await engine.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """transformers logs the traceback of a failed step."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    logger.disabled = True
    yield
    logger.disabled = False


@contextmanager
def failing(model: torch.nn.Module, error: Exception, after: int = 0) -> Iterator[None]:
    """The model raises once, after so many steps; a step that stands at a gate already is not counted."""
    steps = iter(range(1000))

    def fail(*_: object) -> None:
        if next(steps) == after:
            handle.remove()
            raise error

    handle = model.register_forward_pre_hook(fail)
    yield
    handle.remove()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RuntimeError("a kernel\nfell over"), EngineError, "The engine failed: a kernel. Try again"),
        (KeyError(), EngineError, "The engine failed: KeyError"),
    ],
)
async def test_a_failed_step_fails_those_in_it_and_the_next_is_served(
    model: LlamaForCausalLM, error: Exception, kind: type[EngineError], says: str
) -> None:
    expected = [generated(model, question, max_new_tokens=24) for question in QUESTIONS]
    gate = Gate(model)
    engine = make_engine(model, max_concurrent=6)
    gate.shut()
    tasks = [asyncio.create_task(chunks_of(engine, ask(q, max_new_tokens=100, **GREEDY))) for q in QUESTIONS]
    for _ in range(3):
        await gate.step()
    with failing(model, error, after=5):
        gate.open()
        for task in tasks:
            with pytest.raises(kind, match=says) as raised:
                await task
            assert type(raised.value) is kind
            assert raised.value.__cause__ is error
            assert error.__traceback__ is None, "the frames would keep the step's tensors"
    assert await asyncio.gather(*(answer(engine, ask(question, **GREEDY)) for question in QUESTIONS)) == expected
    await assert_free(engine)
    await engine.close()


@pytest.mark.usefixtures("quiet")
async def test_a_model_that_always_fails_always_says_so(engine: BatchedEngine, model: LlamaForCausalLM) -> None:
    for _ in range(3):
        with failing(model, RuntimeError("no luck")), pytest.raises(EngineError, match="no luck"):
            await answer(engine, ask())
    assert await answer(engine, ask())


@pytest.mark.usefixtures("quiet")
async def test_a_request_that_comes_as_the_thread_fails_is_not_forgotten(
    engine: BatchedEngine, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has seen a running thread; when it hands the request over, that has emptied its queue and ended."""
    submit = engine._loop.submit

    def late(*args: object) -> str:
        manager = engine._loop._manager
        manager.background_thread_status.record_fatal_error(RuntimeError("gone"))
        return submit(*args)

    monkeypatch.setattr(engine._loop, "submit", late)
    with pytest.raises(EngineError, match="failed as the request came"):
        await answer(engine, ask())


async def test_too_many_requests_are_refused_and_the_rest_served() -> None:
    model = tiny_llama()
    gate = Gate(model)
    engine = make_engine(model, max_concurrent=2, max_waiting=1)
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, ask(question, **GREEDY))) for question in QUESTIONS[:3]]
    await until(lambda: gate.holds)
    with pytest.raises(EngineBusyError, match="too many requests waiting: try again"):
        await answer(engine, ask())
    gate.open()
    answers = await asyncio.gather(*tasks)
    assert answers == [generated(model, question, max_new_tokens=24) for question in QUESTIONS[:3]]
    assert await answer(engine, ask())
    await engine.close()


async def test_a_prompt_that_fills_the_context_is_refused_by_the_encoder(engine: BatchedEngine) -> None:
    with pytest.raises(PromptError):
        await answer(engine, ask("z" * 256))
    await assert_free(engine)


async def test_a_prompt_larger_than_the_whole_cache_says_by_how_much(model: LlamaForCausalLM) -> None:
    engine = make_engine(model, kv_tokens=64)
    assert engine._loop.capacity == 64
    with pytest.raises(ContextFullError, match=r"has 70 tokens, and TINY can take 63 .* shorten it by 7") as e:
        await answer(engine, ask("z" * 70))
    assert e.value.excess == 7
    chunks = await chunks_of(engine, ask("z" * 63, **GREEDY))
    assert (chunks[-1].finish_reason, chunks[-1].usage.completion_tokens) == ("length", 1)
    chunks = await chunks_of(engine, ask("z" * 40, max_new_tokens=100, **GREEDY))
    assert (chunks[-1].finish_reason, chunks[-1].usage.completion_tokens) == ("length", 24)
    await engine.close()


async def test_a_full_cache_loses_no_request(model: LlamaForCausalLM) -> None:
    """Eight answers need four times the cache: they wait, or give their place up and are read again."""
    engine = make_engine(model, kv_tokens=128)
    sampled = [
        ask(q, max_new_tokens=60, temperature=1.0, repetition_penalty=1.2, seed=n) for n, q in enumerate(QUESTIONS)
    ]
    alone = [await answer(engine, request) for request in sampled]
    restarts = _count_restarts(engine)
    streams = await asyncio.gather(*(chunks_of(engine, request) for request in sampled))
    assert ["".join(chunk.delta for chunk in chunks) for chunks in streams] == alone
    assert [_completion(chunks) for chunks in streams] == [60] * 8
    assert restarts, "the cache was large enough: the test shows nothing"
    await until(lambda: not processor(engine).scheduler.has_pending_requests())
    await engine.close()


def _count_restarts(engine: BatchedEngine) -> list[object]:
    manager = processor(engine).offloading_manager
    offload, restarts = manager.offload_requests, []

    def counted() -> bool:
        restarts.append(offload())
        return restarts[-1]

    manager.offload_requests = counted
    return restarts


def _completion(chunks: list[GenerationChunk]) -> int:
    assert chunks[-1].usage is not None
    return chunks[-1].usage.completion_tokens


async def test_requests_behind_a_full_cache_go_on_when_those_before_them_are_cancelled(model: LlamaForCausalLM) -> None:
    expected = {question: generated(model, question, max_new_tokens=100) for question in QUESTIONS}
    gate = Gate(model)
    engine = make_engine(model, kv_tokens=128)
    gate.shut()
    tasks = {q: asyncio.create_task(answer(engine, ask(q, max_new_tokens=100, **GREEDY))) for q in QUESTIONS[:6]}
    scheduler = processor(engine).scheduler
    while not (scheduler.block_new_requests and scheduler.waiting_requests):
        await gate.step()
    questions = dict(zip(engine._loop._router.inboxes, QUESTIONS[:6], strict=True))
    waiting = [questions[ticket] for ticket in scheduler.waiting_requests]
    for ticket in scheduler.active_requests:
        tasks[questions[ticket]].cancel()
    gate.open()
    for question in waiting:
        assert await tasks[question] == expected[question]
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await engine.close()


def test_a_cache_larger_than_the_memory_is_said_when_the_engine_is_made(model: LlamaForCausalLM) -> None:
    with pytest.raises(OutOfMemoryError, match="the KV cache did not fit"):
        BatchedEngine(model, encoder(model), options=BatchedOptions(kv_tokens=10**13))


def test_an_attention_that_cannot_be_batched_is_said_when_the_engine_is_made(model: LlamaForCausalLM) -> None:
    model.set_attn_implementation("flex_attention")
    with pytest.raises(EngineError, match="cannot be batched: Implementation flex_attention is not supported"):
        make_engine(model)

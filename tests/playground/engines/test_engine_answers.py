"""What the engines here answer: the tokens of `generate`, the same for the same seed, cut and counted rightly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_room import (
    CONTEXT,
    EOS,
    GREEDY,
    KINDS,
    QUESTIONS,
    Kind,
    answer,
    ask,
    chunks_of,
    generated,
    make_engine,
    processor,
    tiny_llama,
    tokenizer_of,
)
from scripts_of_the_world import assert_whole
from transformers import LlamaForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimForCausalLM
from playground.engines.batched import BatchedEngine
from playground.engines.in_process import InProcessEngine
from playground.types import GenerationRequest

GOLDENS = Path(__file__).parents[2] / "goldens"
SMALL_STEPS = {"max_batch_tokens": 16}
"""Prompts are read in pieces, so requests are in all stages at the same time."""


def krutrim(name: str) -> PreTrainedModel:
    model = KrutrimForCausalLM.from_pretrained(GOLDENS / name)
    model.generation_config.eos_token_id = EOS
    return model.eval()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="module", params=[{}, SMALL_STEPS], ids=["whole prompts", "prompts in pieces"])
def steps(request: pytest.FixtureRequest) -> dict[str, int]:
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def engine(kind: Kind, steps: dict[str, int], model: LlamaForCausalLM) -> Iterator[InProcessEngine]:
    engine = make_engine(model, kind=kind, **steps)
    yield engine
    asyncio.run(engine.close())


async def at_once(engine: InProcessEngine, requests: list[GenerationRequest], pauses: list[float]) -> list[str]:
    async def join(request: GenerationRequest, pause: float) -> str:
        await asyncio.sleep(pause)
        return await answer(engine, request)

    return await asyncio.gather(*map(join, requests, pauses))


async def test_greedy_is_generate(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    answers = await at_once(engine, [ask(question, **GREEDY) for question in QUESTIONS], [0.0] * len(QUESTIONS))
    assert answers == [generated(model, question, max_new_tokens=24) for question in QUESTIONS]


@pytest.mark.parametrize("name", ["gqa_alibi_clip_relu", "gqa_alibi_gelu_bias", "mha_learned_pos"])
async def test_greedy_is_generate_for_the_krutrim_port(kind: Kind, name: str) -> None:
    model = krutrim(name)
    questions = ["Hello", "one two", "x"]
    engine = make_engine(model, kind=kind, **SMALL_STEPS)
    try:
        answers = await at_once(engine, [ask(question, **GREEDY) for question in questions], [0.0] * 3)
    finally:
        await engine.close()
    assert answers == [generated(model, question, max_new_tokens=24) for question in questions]


async def test_the_repetition_penalty_is_generates(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    """Also where a prompt's beginning is taken from the cache: the second round shares it."""
    long = "one two three four five " * 4
    questions = [long + "six", long + "seven", *QUESTIONS]
    penalties = [1.3, 2.0, 1.0, 0.7, 1.1, 1.3, 1.0, 3.0, 1.2, 1.5]
    requests = [
        ask(q, repetition_penalty=p, max_new_tokens=40, **GREEDY) for q, p in zip(questions, penalties, strict=True)
    ]
    expected = [
        generated(model, question, max_new_tokens=40, repetition_penalty=penalty)
        for question, penalty in zip(questions, penalties, strict=True)
    ]
    assert len(set(expected)) == len(expected)
    for _ in range(2):
        assert await at_once(engine, requests, [0.0] * len(requests)) == expected
    if isinstance(engine, BatchedEngine):
        assert any(a.ledger.cached_blocks for a in processor(engine).cache.cache_allocators.values())


async def test_the_same_seed_gives_the_same_answer_whatever_else_is_in_the_batch(engine: InProcessEngine) -> None:
    sampled = {"temperature": 1.1, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "max_new_tokens": 40}
    request = ask("안녕하세요", seed=7, **sampled)
    alone = await answer(engine, request)
    assert alone == await answer(engine, request.model_copy(update={"request_id": "again"}))
    others = [
        ask(question, **(GREEDY if n % 3 == 0 else {**sampled, "seed": n})) for n, question in enumerate(QUESTIONS[1:])
    ]
    for round_ in range(3):
        pauses = [random.Random(f"{round_} {n}").uniform(0, 0.03) for n in range(8)]
        everyone = [request, *others]
        answers = await at_once(
            engine, [r.model_copy(update={"request_id": f"{round_} {n}"}) for n, r in enumerate(everyone)], pauses
        )
        assert answers[0] == alone


async def test_a_batch_of_eight_is_eight_answers_given_alone(engine: InProcessEngine) -> None:
    requests = [ask(question, temperature=0.9, seed=n, max_new_tokens=30) for n, question in enumerate(QUESTIONS)]
    alone = [await answer(engine, request) for request in requests]
    assert await at_once(engine, requests, [n * 0.004 for n in range(8)]) == alone


async def test_other_seeds_give_other_answers(engine: InProcessEngine) -> None:
    answers = await at_once(engine, [ask(temperature=1.0, seed=seed) for seed in range(8)], [0.0] * 8)
    assert len(set(answers)) == 8


async def test_one_candidate_is_greedy(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    expected = generated(model, "안녕", max_new_tokens=24)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}):
        assert await answer(engine, ask(**{"temperature": 1.0, "seed": 3, **narrow})) == expected


async def test_deltas_are_whole_graphemes_and_only_the_last_chunk_ends(engine: InProcessEngine) -> None:
    chunks = await chunks_of(engine, ask(temperature=1.0, max_new_tokens=100))
    assert_whole([chunk.delta for chunk in chunks])
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.delta for chunk in chunks[:-1])


async def test_usage_and_timings_travel_in_every_chunk(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    prompt_tokens = len(tokenizer_of(model).encode("안녕"))
    chunks = await chunks_of(engine, ask(max_new_tokens=30, **GREEDY))
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert counts == sorted(counts)
    assert (len(counts), counts[-1]) == (len(chunks), 30)
    for chunk in chunks:
        assert chunk.usage is not None
        assert chunk.usage.prompt_tokens == prompt_tokens
        assert chunk.timings is not None
        assert chunk.timings.queued_s >= 0
        assert chunk.timings.prefill_s > 0
        assert chunk.timings.decode_s >= 0
    assert chunks[-1].timings.decode_s > 0
    assert chunks[-1].timings.time_to_first_token_s == chunks[0].timings.time_to_first_token_s


async def test_the_end_of_sequence_token_ends_an_answer_and_is_no_text(kind: Kind) -> None:
    model = tiny_llama()
    tokenizer = tokenizer_of(model)
    ids = tokenizer.encode("x")
    written = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
    end = next(n for n in range(5, 24) if written[n] not in written[:n])
    model.generation_config.eos_token_id = [written[end], 399]
    engine = make_engine(model, kind=kind)
    try:
        chunks = await chunks_of(engine, ask("x", **GREEDY))
    finally:
        await engine.close()
    assert "".join(chunk.delta for chunk in chunks) == tokenizer.decode(written[:end])
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == end + 1


async def test_a_stop_string_ends_an_answer_before_it(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    text = generated(model, "x", max_new_tokens=60)
    stop = text[20:24]
    chunks = await chunks_of(engine, ask("x", max_new_tokens=60, stop=(stop, "never written"), **GREEDY))
    assert "".join(chunk.delta for chunk in chunks) == text[: text.index(stop)]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens < 60


async def test_a_full_context_ends_an_answer_by_length(engine: InProcessEngine, model: LlamaForCausalLM) -> None:
    chunks = await chunks_of(engine, ask("x" * 200, max_new_tokens=10_000, **GREEDY))
    usage = chunks[-1].usage
    assert chunks[-1].finish_reason == "length"
    assert usage.prompt_tokens + usage.completion_tokens == CONTEXT
    room = usage.completion_tokens
    assert "".join(c.delta for c in chunks) == generated(model, "x" * 200, max_new_tokens=room)


async def test_one_token_is_an_answer(engine: InProcessEngine) -> None:
    (chunk,) = await chunks_of(engine, ask(max_new_tokens=1, **GREEDY))
    assert chunk.finish_reason == "length"
    assert chunk.usage.completion_tokens == 1
    assert chunk.timings.decode_s == 0

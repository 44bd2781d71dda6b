"""Steps that are recorded and replayed, or prepared while others run, write what plain ones write.

The device is the CPU, with graphs and streams played by tests/recorded_steps.py. test_on_a_gpu.py asks a real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import torch
from engine_room import GREEDY, QUESTIONS, answer, ask, assert_free, make_engine, processor, tiny_llama
from recorded_steps import Recording, play_gpu
from transformers import LlamaForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from playground.engines.batched import BatchedEngine, BatchedOptions, _config
from playground.engines.decoding.step_graphs import LEAST_KV, padded_cache
from playground.errors import OutOfMemoryError

WAYS = {
    "recorded": {"cuda_graphs": True, "async_batching": False},
    "ahead": {"cuda_graphs": False, "async_batching": True},
    "recorded ahead": {"cuda_graphs": True, "async_batching": True},
}
PARAMETERS: list[dict[str, Any]] = [
    GREEDY,
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 30},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 0.0, "repetition_penalty": 1.4},
]
REQUESTS = [
    ask(question, max_new_tokens=20, **{**PARAMETERS[n % len(PARAMETERS)], "seed": n})
    for n, question in enumerate([*QUESTIONS[:6], "a long question " * 8])
]


def tiny_krutrim() -> KrutrimForCausalLM:
    torch.manual_seed(0)
    attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi": True, "clip_qkv": 6}
    config = KrutrimConfig(
        d_model=64, n_heads=4, n_layers=2, vocab_size=400, max_seq_len=256, attn_config=attention, no_bias=True,
        initializer_range=0.3, eos_token_id=0,
    )  # fmt: skip
    model = KrutrimForCausalLM(config).eval()
    model.lm_head.weight.data[0] = 0
    return model


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    return play_gpu(monkeypatch)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, bool]:
    return WAYS[request.param]


@pytest.fixture
async def engine(recordings: list[Recording], way: dict[str, bool]) -> AsyncIterator[BatchedEngine]:
    engine = make_engine(tiny_llama(), max_concurrent=6, **way)
    yield engine
    await engine.close()


async def plain_answers(model: PreTrainedModel) -> list[str]:
    engine = make_engine(model)
    answers = [await answer(engine, request) for request in REQUESTS]
    await engine.close()
    return answers


@pytest.mark.parametrize("build", [tiny_llama, tiny_krutrim])
async def test_alone_and_together_answers_are_as_without(
    recordings: list[Recording], way: dict[str, bool], build: Any
) -> None:
    expected = await plain_answers(build())
    assert not recordings
    engine = make_engine(build(), max_concurrent=6, **way)
    ready = len(recordings)
    assert [await answer(engine, request) for request in REQUESTS] == expected
    alone = len(recordings)
    assert await asyncio.gather(*(answer(engine, request) for request in REQUESTS)) == expected
    await assert_free(engine)
    await engine.close()
    if way["cuda_graphs"]:
        assert ready, "nothing was recorded beforehand"
        assert alone == ready, "something was recorded in the middle of an answer"
        assert sum(recording.replays for recording in recordings) > 7 * 20 - 7 * 3
    else:
        assert not recordings


async def test_only_small_steps_are_recorded_and_in_few_sizes(recordings: list[Recording]) -> None:
    engine = make_engine(tiny_llama(), max_concurrent=6, cuda_graphs=True, async_batching=False)
    await asyncio.gather(*(answer(engine, request) for request in REQUESTS))
    keys = list(processor(engine).inputs_and_outputs.graphs._storage)
    assert {1} < {tokens for tokens, *_ in keys} <= {1, 2, 4, 6}
    assert {tokens + cached for tokens, cached, *_ in keys} == {LEAST_KV}
    assert len(keys) == len(recordings) <= 4 * 2
    await engine.close()


async def test_ended_and_failed_requests_leave_nothing(engine: BatchedEngine) -> None:
    expected = await answer(engine, REQUESTS[1])

    async def leave(number: int) -> None:
        async with aclosing(engine.stream(REQUESTS[number])) as stream:
            async for chunk in stream:
                assert chunk.usage is not None
                if chunk.usage.completion_tokens > 2 + number:
                    break

    for _ in range(3):
        *_, got = await asyncio.gather(leave(2), leave(3), leave(4), answer(engine, REQUESTS[1]))
        assert got == expected
    await assert_free(engine)


async def test_a_full_device_costs_one_request(engine: BatchedEngine) -> None:
    """With a batch in flight too: its tokens are dropped, and made again by those who go on."""
    requests = REQUESTS[:5]
    alone = [await answer(engine, request) for request in requests]
    manager = engine._loop._manager
    step, count = manager._generation_step, iter(range(10_000))

    def run() -> None:
        if next(count) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        step()

    manager._generation_step = run
    together = await asyncio.gather(*(answer(engine, request) for request in requests), return_exceptions=True)
    assert sum(isinstance(got, OutOfMemoryError) for got in together) == 1
    assert [said for said, got in zip(alone, together, strict=True) if isinstance(got, str)] == [
        got for got in together if isinstance(got, str)
    ]
    await assert_free(engine)


async def test_where_nothing_can_be_recorded_steps_run_unrecorded(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = await plain_answers(tiny_llama())

    def refuse(recording: Recording, *_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recording, "__torch_dispatch__", refuse)
    monkeypatch.setattr("transformers.generation.continuous_batching.model_runner.logger.disabled", True)
    engine = make_engine(tiny_llama(), cuda_graphs=True, async_batching=False)
    assert "no step of the model could be recorded" in caplog.text
    assert [await answer(engine, request) for request in REQUESTS] == expected
    await engine.close()


@pytest.mark.parametrize(
    ("tokens", "cached", "padded"),
    [(1, 0, 511), (1, 511, 511), (1, 512, 1023), (4, 1020, 1020), (4, 1021, 2044), (1, 8191, 8191), (1, 8192, 8192)],
)
def test_the_cache_that_a_step_reads_is_padded_to_a_power_of_two(tokens: int, cached: int, padded: int) -> None:
    assert padded_cache(tokens, cached, most=8192) == padded


@pytest.mark.parametrize(
    ("options", "device", "graphs", "ahead"),
    [
        ({}, "cpu", False, False),
        ({}, "cuda", True, True),
        ({"cuda_graphs": False}, "cuda", False, True),
        ({"cuda_graphs": False, "async_batching": False}, "cuda", False, False),
    ],
)
def test_both_are_on_where_the_device_is_a_gpu_and_nobody_says_otherwise(
    recordings: list[Recording], options: dict[str, bool], device: str, graphs: bool, ahead: bool
) -> None:
    from transformers.generation.continuous_batching.initialization import resolve_continuous_batching_config

    model = _On(tiny_llama(), device)
    config = resolve_continuous_batching_config(
        model.config, _config(model, BatchedOptions(**options)), None, True, torch.device(device)
    )
    assert config.cuda_graph_booleans == (graphs, graphs)
    assert config.use_async_batching is ahead
    assert config.varlen_compile_config is None
    assert config.decode_compile_config is None


class _On:
    """A model that says it is elsewhere."""

    def __init__(self, model: LlamaForCausalLM, device: str) -> None:
        self.config = model.config
        self.device = torch.device(device)

"""A base and its views, each in an engine of its own, over the same weights, all answering at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    Kind,
    answer,
    ask,
    generated,
    make_engine,
    spread,
    tiny_gpt_neox,
    tiny_krutrim,
    tiny_llama,
)
from shared_weights import logits, with_peft
from tiny_adapters import write_adapter
from transformers import PreTrainedModel

from playground.adapters.base_layers import layers_of
from playground.adapters.inspect import inspect_adapter
from playground.adapters.sharing import shared_copy
from playground.adapters.views import rescaled, view_of
from playground.engines.in_process import InProcessEngine

MAKES: dict[str, tuple[Callable[[], PreTrainedModel], list[str], list[str]]] = {
    "krutrim": (tiny_krutrim, ["Wqkv"], ["up_proj", "out_proj"]),
    "llama": (tiny_llama, ["q_proj", "v_proj"], ["down_proj"]),
    "gpt-neox": (tiny_gpt_neox, ["query_key_value"], ["dense"]),
}
LENGTH = 24


@asynccontextmanager
async def engines(models: Sequence[PreTrainedModel], kind: Kind = "batched") -> AsyncIterator[list[InProcessEngine]]:
    made: list[InProcessEngine] = []
    try:
        for model in models:
            made.append(await asyncio.to_thread(make_engine, model, kind=kind))
        yield made
    finally:
        await asyncio.gather(*(engine.close() for engine in made))


def adapters(root: Path, base: PreTrainedModel, *targets: list[str]) -> list[Path]:
    return [write_adapter(root / names[0], base, target_modules=names) for names in targets]


def views_of(base: PreTrainedModel, plain: PreTrainedModel, folders: Sequence[Path]) -> list[PreTrainedModel]:
    return [view_of(base, folder, inspect_adapter(folder, layers_of(plain))) for folder in folders]


async def greedy(engine: InProcessEngine, question: str) -> str:
    return await answer(engine, ask(question, max_new_tokens=LENGTH, **GREEDY))


@pytest.mark.parametrize("name", MAKES)
async def test_eight_requests_over_base_and_two_adapters_answer_as_each_alone(name: str, tmp_path: Path) -> None:
    make, *targets = MAKES[name]
    base = make()
    folders = adapters(tmp_path, base, *targets)
    peft = [deepcopy(base), *(with_peft(deepcopy(base), folder) for folder in folders)]
    alone = [[generated(model, question, max_new_tokens=LENGTH) for question in QUESTIONS] for model in peft]
    assert all(len({answers[i] for answers in alone}) == 3 for i in range(len(QUESTIONS)))
    said_before = logits(base)
    async with engines([base, *views_of(shared_copy(base), base, folders)]) as serving:
        one_by_one = [[await greedy(engine, question) for question in QUESTIONS] for engine in serving]
        at_once = [[greedy(serving[i % 3], question) for i, question in enumerate(QUESTIONS)]]
        mixed = await asyncio.gather(*at_once[0])
        all_at_once = await asyncio.gather(*(greedy(e, question) for e in serving for question in QUESTIONS))
    assert one_by_one == alone
    assert mixed == [alone[i % 3][i] for i in range(len(QUESTIONS))]
    assert list(all_at_once) == [text for answers in alone for text in answers]
    assert torch.equal(logits(base), said_before)


async def test_views_over_a_spread_model_answer_as_each_alone(tmp_path: Path) -> None:
    plain = tiny_llama()
    folders = adapters(tmp_path, plain, ["q_proj", "v_proj"], ["down_proj"])
    peft = [plain, *(with_peft(deepcopy(plain), folder) for folder in folders)]
    alone = [[generated(model, question, max_new_tokens=LENGTH) for question in QUESTIONS] for model in peft]
    base = spread(deepcopy(plain), tmp_path / "offloaded")
    async with engines([base, *views_of(shared_copy(base), plain, folders)], "sharded") as serving:
        all_at_once = await asyncio.gather(*(greedy(e, question) for e in serving for question in QUESTIONS))
    assert list(all_at_once) == [text for answers in alone for text in answers]


async def test_views_come_and_go_while_the_base_answers(tmp_path: Path) -> None:
    base = tiny_krutrim()
    (folder,) = adapters(tmp_path, base, ["Wqkv"])
    facts = inspect_adapter(folder, layers_of(base))
    whole = generated(base, QUESTIONS[0], max_new_tokens=200)
    pattern = shared_copy(base)
    loud = logits(view_of(pattern, folder, facts))
    gate = Gate(base)
    async with engines([base]) as (engine,):
        gate.shut()
        running = asyncio.create_task(answer(engine, ask(QUESTIONS[0], max_new_tokens=200, **GREEDY)))
        for _ in range(5):
            await gate.step()
            view = await asyncio.to_thread(view_of, pattern, folder, facts)
            assert torch.equal(logits(view), loud)
            assert torch.equal(logits(rescaled(view, 0)), logits(pattern))
            del view
        gate.open()
        for _ in range(5):
            async with engines([view_of(pattern, folder, facts)]) as (other,):
                await greedy(other, "Hello")
        assert await running == whole


async def test_two_scales_of_one_adapter_answer_at_once(tmp_path: Path) -> None:
    base = tiny_llama()
    (folder,) = adapters(tmp_path, base, ["q_proj", "v_proj"])
    (pattern,) = views_of(base, base, [folder])
    scales = (0, 0.25, 1, 2)
    alone = [generated(rescaled(pattern, scale), QUESTIONS[0], max_new_tokens=LENGTH) for scale in scales]
    assert len(set(alone)) == len(scales)
    assert alone[0] == generated(base, QUESTIONS[0], max_new_tokens=LENGTH)
    async with engines([rescaled(pattern, scale) for scale in scales]) as serving:
        assert await asyncio.gather(*(greedy(engine, QUESTIONS[0]) for engine in serving)) == alone

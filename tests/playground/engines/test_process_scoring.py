"""An engine in a process of its own tells how probable an answer was as one that is here, and lets go as soon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_room import attach, checked, using
from engine_room import tokens_in
from process_room import ask, chunks_of, load_scripted, on_the_cpu, process_of, started, tiny_spec, until

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import CheckedAdapter
from playground.engines.checkpoints.tokenizers import load_tokenizer
from playground.engines.checkpoints.weights import load_model
from playground.engines.process import ProcessEngine, start_engine
from playground.errors import EngineClosedError, EngineError, OutOfMemoryError
from playground.prompting.encoder import PromptEncoder

ADAPTERS = Path(__file__).parents[3] / "model_registry" / "demo" / "adapters"
QUESTIONS = {"demo-krutrim": "नमस्ते, आप कैसे हैं?", "demo-kullm3": "안녕하세요, 오늘 날씨가 어때요?"}
PEFTS_OWN = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


@pytest.fixture(scope="module", params=QUESTIONS)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return Registry.load().get(request.param)


@pytest.fixture(scope="module")
def engine(spec: ModelSpec) -> Iterator[ProcessEngine]:
    made: Any = start_engine(spec, on_the_cpu(spec, kv_tokens=4096), lambda _: None, threading.Event())
    yield made
    asyncio.run(made.close())


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with started(tiny_spec(tmp_path), load_scripted) as made:
        yield made


@torch.no_grad()
def plain_probabilities(spec: ModelSpec, request: Any, token_ids: tuple[int, ...]) -> list[float]:
    """From one forward pass over prompt and answer, without a cache."""
    assert spec.weights.path is not None
    model = load_model(spec, spec.weights.path, on_the_cpu(spec), lambda _: None)
    prompt = PromptEncoder(spec, load_tokenizer(spec, spec.weights.path)).encode(request.messages).token_ids
    logits = model(torch.tensor([[*prompt, *token_ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.softmax(-1).gather(-1, torch.tensor(token_ids)[:, None])[:, 0].tolist()


async def test_the_stand_ins_tell_what_a_plain_forward_pass_says(spec: ModelSpec, engine: ProcessEngine) -> None:
    request = ask(QUESTIONS[spec.id], max_new_tokens=60)
    chunks = await chunks_of(engine, request)
    token_ids = tokens_in(chunks)
    pieces = await engine.score(request, token_ids)
    scores = [score for piece in pieces for score in piece.tokens]
    assert [score.token_id for score in scores] == [*token_ids]
    assert [score.probability for score in scores] == pytest.approx(
        plain_probabilities(spec, request, token_ids), abs=1e-5
    )
    assert all(score.likeliest[0].token_id == score.token_id for score in scores)  # the answer was greedy
    shown = "".join(piece.text for piece in pieces if not piece.is_control)
    assert shown == "".join(chunk.delta for chunk in chunks)
    assert [piece.is_control for piece in pieces].count(True) == (chunks[-1].finish_reason == "stop")


async def test_while_it_answers(spec: ModelSpec, engine: ProcessEngine) -> None:
    request = ask(QUESTIONS[spec.id], temperature=1, max_new_tokens=120)
    alone = tokens_in(await chunks_of(engine, request))
    pieces = await engine.score(request, alone)
    running = asyncio.create_task(chunks_of(engine, request))
    assert await asyncio.gather(*(engine.score(request, alone) for _ in range(3))) == [pieces] * 3
    assert tokens_in(await running) == alone


@pytest.mark.filterwarnings(PEFTS_OWN)
async def test_an_adapters_engine_tells_its_own(spec: ModelSpec, engine: ProcessEngine) -> None:
    assert spec.weights.path is not None
    name = spec.id.removeprefix("demo-")
    adapter: CheckedAdapter = checked(ADAPTERS / f"{name}-formal", base_layers(spec, spec.weights.path), spec.id)
    view = await attach(engine, adapter)
    request = using(ask(QUESTIONS[spec.id], max_new_tokens=40), adapter)
    token_ids = tokens_in(await chunks_of(view, request))
    pieces = await view.score(request, token_ids)
    assert all(score.likeliest[0].token_id == score.token_id for piece in pieces for score in piece.tokens)
    plain = await engine.score(request.model_copy(update={"adapter": None}), token_ids)
    assert plain != pieces
    with pytest.raises(EngineError, match="choose the adapter again"):
        await engine.score(request, token_ids)
    await view.close()
    with pytest.raises(EngineClosedError, match="choose the adapter again"):
        await view.score(request, token_ids)


async def test_errors_arrive_as_what_they_are(scripted: ProcessEngine) -> None:
    with pytest.raises(OutOfMemoryError, match="wait for other answers"):
        await scripted.score(ask("full"), (1,))
    with pytest.raises(EngineError, match="Tiny one failed: no such thing"):
        await scripted.score(ask("broken"), (1,))
    assert [piece.text for piece in await scripted.score(ask(), (1, 2))] == ["1", "2"]


async def test_it_is_given_up_when_nobody_waits(scripted: ProcessEngine, tmp_path: Path) -> None:
    scoring = asyncio.create_task(scripted.score(ask("slow"), (1,)))
    await until(lambda: any(tmp_path.rglob("scoring")))
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    await until(lambda: not any(tmp_path.rglob("scoring")))
    assert not scripted._answers._open


@pytest.mark.parametrize("way", ["closed", "killed"])
async def test_an_end_of_the_process_is_told(scripted: ProcessEngine, tmp_path: Path, way: str) -> None:
    scoring = asyncio.create_task(scripted.score(ask("slow"), (1,)))
    await until(lambda: any(tmp_path.rglob("scoring")))
    if way == "closed":
        await scripted.close()
    else:
        process_of(scripted).kill()
    with pytest.raises(EngineError, match="was stopped" if way == "closed" else "is gone"):
        await scoring
    with pytest.raises(EngineError):
        await scripted.score(ask(), (1,))

"""The probabilities of an answer's tokens: those of a plain forward pass, in readable pieces, beside other answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from adapted_room import adapters, attach, base_engine, using
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    Kind,
    ask,
    chunks_of,
    make_engine,
    spread,
    tiny_gpt_neox,
    tiny_krutrim,
    tiny_llama,
    tokenizer_of,
    tokens_in,
)
from scoring_room import House, llama_house, scores, tokens_of
from shared_weights import with_peft
from transformers import PreTrainedModel

from playground.engines import scoring
from playground.errors import ContextFullError, EngineClosedError, EngineError
from playground.types import PromptOptions, ScoredPiece

PEFTS_OWN = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


MAKERS = {"llama": tiny_llama, "gpt_neox": tiny_gpt_neox, "krutrim": tiny_krutrim}


@pytest.fixture(params=[*MAKERS, "sharded", "spread"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """`spread`: over two devices, as far as accelerate can tell."""
    plain = MAKERS.get(request.param, tiny_llama)()
    model = deepcopy(plain)
    if request.param == "spread":
        model = spread(model, tmp_path / "offloaded")
    house = House(model, plain, base_engine(model, "batched" if request.param in MAKERS else "sharded"))
    yield house
    await house.engine.close()


@pytest.fixture
async def llama(kind: Kind) -> AsyncIterator[House]:
    async with llama_house(kind) as house:
        yield house


def text_of(pieces: Sequence[ScoredPiece]) -> str:
    return "".join(piece.text for piece in pieces)


@torch.no_grad()
def plain_probabilities(model: PreTrainedModel, question: str, token_ids: Sequence[int]) -> torch.Tensor:
    """(tokens, vocab): before each token of the answer, from one forward pass without a cache."""
    prompt = tokenizer_of(model).encode(question, add_special_tokens=False)
    logits = model(torch.tensor([[*prompt, *token_ids]])).logits[0]
    return logits[len(prompt) - 1 : -1].softmax(-1)


def assert_are(pieces: Sequence[ScoredPiece], expected: torch.Tensor, token_ids: Sequence[int]) -> None:
    given = scores(pieces)
    assert [score.token_id for score in given] == [*token_ids]
    for score, row in zip(given, expected, strict=True):
        assert score.probability == pytest.approx(row[score.token_id].item(), abs=1e-5)
        values, tokens = row.topk(5)
        assert [likely.token_id for likely in score.likeliest] == tokens.tolist()
        assert [likely.probability for likely in score.likeliest] == pytest.approx(values.tolist(), abs=1e-5)
        assert score.probability <= score.likeliest[0].probability
        assert sum(likely.probability for likely in score.likeliest) <= 1 + 1e-5


async def test_they_are_those_of_a_plain_forward_pass(house: House) -> None:
    for question in QUESTIONS[:3]:
        request = ask(question, temperature=1.5, max_new_tokens=70)
        token_ids = await tokens_of(house.engine, request)
        pieces = await house.engine.score(request, token_ids)
        assert_are(pieces, plain_probabilities(house.plain, question, token_ids), token_ids)


async def test_the_prompt_is_the_answers_own(llama: House) -> None:
    options = PromptOptions(template="Q: {{ messages[-1].content }} A:")
    request = ask("x", temperature=1.0).model_copy(update={"options": options})
    chunks = await chunks_of(llama.engine, request)
    token_ids = tokens_in(chunks)
    assert len(token_ids) == chunks[-1].usage.completion_tokens == 24
    counts = [0, *(chunk.usage.completion_tokens for chunk in chunks if chunk.usage)]
    assert [len(chunk.token_ids) for chunk in chunks] == [now - before for before, now in pairwise(counts)]
    pieces = await llama.engine.score(request, token_ids)
    assert_are(pieces, plain_probabilities(llama.plain, "Q: x A:", token_ids), token_ids)


async def test_a_greedy_answer_has_the_likeliest_token_everywhere(house: House) -> None:
    request = ask("नमस्ते", max_new_tokens=80, **GREEDY)
    token_ids = await tokens_of(house.engine, request)
    assert len(token_ids) == 80
    pieces = await house.engine.score(request, token_ids)
    for score in scores(pieces):
        assert score.likeliest[0].token_id == score.token_id
        assert score.probability == score.likeliest[0].probability


async def test_a_long_prompt_is_read_in_steps(monkeypatch: pytest.MonkeyPatch, llama: House) -> None:
    monkeypatch.setattr(scoring, "READ_TOKENS", 7)
    monkeypatch.setattr(scoring, "SCORED_TOKENS", 5)
    for length in (1, 5, 6, 33):
        request = ask("one two three four five six seven eight", temperature=1.0, max_new_tokens=length)
        token_ids = await tokens_of(llama.engine, request)
        pieces = await llama.engine.score(request, token_ids)
        assert_are(pieces, plain_probabilities(llama.plain, request.messages[0].content, token_ids), token_ids)


@pytest.mark.filterwarnings(PEFTS_OWN)
async def test_a_model_with_an_adapter_tells_its_own(llama: House, tmp_path: Path) -> None:
    [adapter] = adapters(tmp_path, llama.plain, ["q_proj", "v_proj"])
    view, half = await attach(llama.engine, adapter), await attach(llama.engine, adapter, 0.5)
    request = ask(max_new_tokens=20, **GREEDY)
    token_ids = await tokens_of(llama.engine, request)
    pieces = [
        await llama.engine.score(request, token_ids),
        await half.score(using(request, adapter, 0.5), token_ids),
        await view.score(using(request, adapter), token_ids),
    ]
    question = request.messages[0].content
    peft = with_peft(deepcopy(llama.plain), adapter.folder)
    assert_are(pieces[0], plain_probabilities(llama.plain, question, token_ids), token_ids)
    assert_are(pieces[2], plain_probabilities(peft, question, token_ids), token_ids)
    middle = [score.probability for score in scores(pieces[1])]
    assert middle != [score.probability for score in scores(pieces[0])]
    assert middle != [score.probability for score in scores(pieces[2])]
    with pytest.raises(EngineError, match="choose the adapter again"):
        await view.score(request, token_ids)
    await view.close()
    with pytest.raises(EngineClosedError):
        await view.score(using(request, adapter), token_ids)


async def test_answers_go_on_to_the_bit_while_another_is_scored(llama: House) -> None:
    requests = [ask(question, temperature=1.0, max_new_tokens=100) for question in QUESTIONS]
    alone = [await tokens_of(llama.engine, request) for request in requests]
    scored = [await llama.engine.score(request, ids) for request, ids in zip(requests, alone, strict=True)]
    gate = Gate(llama.model)
    gate.shut()
    running = [asyncio.create_task(tokens_of(llama.engine, request)) for request in requests]
    for request, ids, expected in zip(requests, alone, scored, strict=True):
        await gate.step()
        assert await llama.engine.score(request, ids) == expected
    gate.open()
    again = await asyncio.gather(
        *running, *(llama.engine.score(request, ids) for request, ids in zip(requests, alone, strict=True))
    )
    assert again == [*alone, *scored]


@pytest.mark.parametrize("question", QUESTIONS[:3])
async def test_the_pieces_are_the_answer_and_whole_characters(llama: House, question: str) -> None:
    request = ask(question, temperature=1.2, max_new_tokens=60)
    chunks = await chunks_of(llama.engine, request)
    pieces = await llama.engine.score(request, tokens_in(chunks))
    assert text_of(pieces) == "".join(chunk.delta for chunk in chunks)
    assert not any(piece.is_control for piece in pieces)


async def test_the_end_token_is_a_piece_of_its_own(llama: House) -> None:
    tokenizer = tokenizer_of(llama.plain)
    token_ids = [*tokenizer.encode("값 뷁!", add_special_tokens=False), tokenizer.eos_token_id]
    pieces = await llama.engine.score(ask(), token_ids)
    assert text_of(pieces[:-1]) == "값 뷁!"
    assert {piece.text: len(piece.tokens) for piece in pieces}["뷁"] > 1
    assert [piece.is_control for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    [end] = pieces[-1].tokens
    assert end.text == pieces[-1].text == tokenizer.eos_token


async def test_no_tokens_make_no_pieces(llama: House) -> None:
    assert await llama.engine.score(ask(), ()) == ()


@pytest.mark.parametrize("strange", [-1, 400, 10**12])
async def test_tokens_of_another_model_are_refused(llama: House, strange: int) -> None:
    with pytest.raises(EngineError, match=f"no token {strange}, only 0 to 399"):
        await llama.engine.score(ask(), (5, strange))


async def test_an_answer_beyond_the_context_is_refused(llama: House) -> None:
    with pytest.raises(EngineError, match="another prompt"):
        await llama.engine.score(ask("x"), (5,) * 256)


async def test_a_prompt_that_cannot_be_is_refused_as_when_it_is_asked(llama: House) -> None:
    with pytest.raises(ContextFullError):
        await llama.engine.score(ask("x" * 2000), (5,))


async def test_an_engine_without_a_tree_to_spare_says_so(kind: Kind) -> None:
    engine = make_engine(kind=kind)
    with pytest.raises(EngineError, match="cannot tell"):
        await engine.score(ask(), (5,))
    await engine.close()

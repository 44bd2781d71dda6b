"""Probabilities that a server tells with its answer: in whole characters, as both APIs and several servers spell."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fake_server import Asked, Stream, chunk, fake_server
from remote_room import answer, both, question, servers, text_of

from playground.engines.remoting.scores import ScoredPieces
from playground.engines.remoting.told import Told, ToldToken, read_chunk
from playground.types import ScoredPiece

Token = tuple[str, float, dict[str, float]]


def legacy(*tokens: Token) -> dict[str, Any]:
    """As /completions tells it."""
    return {
        "tokens": [text for text, _, _ in tokens],
        "token_logprobs": [math.log(probability) for _, probability, _ in tokens],
        "top_logprobs": [{text: math.log(each) for text, each in tops.items()} for _, _, tops in tokens],
        "text_offset": [0 for _ in tokens],
    }


def modern(*tokens: Token) -> dict[str, Any]:
    """As /chat/completions tells it, and llama.cpp everywhere."""
    return {
        "content": [
            {
                "token": text,
                "logprob": math.log(probability),
                "bytes": list(text.encode()),
                "top_logprobs": [{"token": other, "logprob": math.log(each)} for other, each in tops.items()],
            }
            for text, probability, tops in tokens
        ]
    }


GA: Token = ("가", 0.5, {"나": 0.4, "가": 0.5})
NA: Token = ("나", 0.9, {"나": 0.9})


def told(*steps: tuple[str, str | None, list[Token]], form: Any = None, **more: Any) -> Any:
    def answer_with_logprobs(asked: Asked) -> Stream:
        spell = form or (modern if asked.in_chat else legacy)
        events = [
            chunk(asked, text, reason, logprobs=spell(*tokens) if tokens else None) for text, reason, tokens in steps
        ]
        return Stream(events)

    return answer_with_logprobs


def texts(pieces: list[ScoredPiece]) -> list[str]:
    return [piece.text for piece in pieces]


@both
async def test_probabilities_come_with_the_answer(messages_only: bool) -> None:
    steps = told(("가", None, [GA]), ("나", None, [NA]), ("", "stop", [("</s>", 0.8, {})]))
    with fake_server(steps) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    pieces = [piece for each in chunks for piece in each.scores]
    assert texts(pieces) == ["가", "나", "</s>"]
    assert [piece.is_control for piece in pieces] == [False, False, True]
    first = pieces[0].tokens[0]
    assert first.probability == pytest.approx(0.5)
    assert [(each.text, pytest.approx(each.probability)) for each in first.likeliest] == [("가", 0.5), ("나", 0.4)]
    assert {token.token_id for piece in pieces for token in piece.tokens} == {-1}
    asked = server.asked[0].body
    expected: Any = {"logprobs": True, "top_logprobs": 5} if messages_only else {"logprobs": 5}
    assert {name: asked[name] for name in expected} == expected


async def test_one_chunk_may_hold_several_tokens_and_both_spellings_are_read() -> None:
    for form in (legacy, modern):
        with fake_server(told(("가나", None, [GA, NA]), ("", "stop", []), form=form)) as server:
            async with servers() as engines:
                chunks = await answer(engines, question(server))
        assert texts([piece for each in chunks for piece in each.scores]) == ["가", "나"]


@both
async def test_a_server_that_tells_none_gives_none(messages_only: bool) -> None:
    with fake_server(told(("가", None, []), ("", "stop", []))) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "가"
    assert not any(each.scores for each in chunks)


ODD: list[Any] = [
    7,
    {"tokens": 3},
    {"tokens": ["a"], "token_logprobs": ["x"]},
    {"tokens": ["a"], "token_logprobs": [None]},
    {"tokens": ["a", "b"], "token_logprobs": [0.0]},
    {"tokens": ["a"], "token_logprobs": [float("nan")]},
    {"content": [{"token": "a"}]},
    {"content": 5},
]


@both
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_odd_probabilities_cost_no_answer(messages_only: bool, odd: Any) -> None:
    def answer_oddly(asked: Asked) -> Stream:
        return Stream([chunk(asked, "가", logprobs=odd), chunk(asked, "", "stop")])

    with fake_server(answer_oddly) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "가"
    assert not any(each.scores for each in chunks)


def test_probabilities_of_no_token_are_none() -> None:
    assert read_chunk({"choices": [{"text": "가", "logprobs": {"content": [7]}}]}).tokens == ()


def pieces_of(*chunks: Told) -> list[ScoredPiece]:
    scored = ScoredPieces()
    found = [piece for each in chunks for piece in scored.push(each)]
    return [*found, *scored.flush()]


def token(text: str, probability: float = 0.5, token_id: int = -1) -> ToldToken:
    return ToldToken(text, probability, (), token_id)


def test_a_character_of_several_tokens_is_one_piece() -> None:
    """vLLM holds a text back until it is whole, and spells the tokens in it as U+FFFD."""
    found = pieces_of(
        Told("a", tokens=(token("a"),)),
        Told("", tokens=(token("\ufffd"),)),
        Told("", tokens=(token("\ufffd"),)),
        Told("각", tokens=(token("\ufffd"),)),
        Told("b", tokens=(token("b"),)),
    )
    assert [(piece.text, len(piece.tokens)) for piece in found] == [("a", 1), ("각", 3), ("b", 1)]


def test_what_extends_a_character_belongs_to_its_piece() -> None:
    found = pieces_of(*(Told(letter, tokens=(token(letter),)) for letter in "கிக"))
    assert [(piece.text, len(piece.tokens)) for piece in found] == [("கி", 2), ("க", 1)]


def test_the_pieces_joined_are_the_text_however_it_was_cut() -> None:
    text = "नमस्ते 👩‍👩‍👧 क्षत्रिय 각"
    for width in (1, 2, 3, 5):
        parts = [text[start : start + width] for start in range(0, len(text), width)]
        found = pieces_of(*(Told(part, tokens=(token(part),)) for part in parts))
        assert "".join(texts(found)) == text
        assert sum(len(piece.tokens) for piece in found) == len(parts)


def test_text_without_tokens_is_no_piece_of_its_own() -> None:
    assert pieces_of(Told("abc")) == []


def test_ids_are_those_that_the_server_tells() -> None:
    payload = {"choices": [{"text": "가나", "logprobs": legacy(GA, NA), "token_ids": [11, 12]}]}
    found = pieces_of(read_chunk(payload))
    scores = [score for piece in found for score in piece.tokens]
    assert [score.token_id for score in scores] == [11, 12]
    assert [each.token_id for each in scores[0].likeliest] == [11, -1]
    payload["choices"][0]["token_ids"] = [11]
    assert {score.token_id for piece in pieces_of(read_chunk(payload)) for score in piece.tokens} == {-1}


def test_no_more_than_five_are_told_and_no_probability_is_above_one() -> None:
    tops = {str(number): number / 100 for number in range(1, 9)}
    (piece,) = pieces_of(read_chunk({"choices": [{"text": "가", "logprobs": legacy(("가", 1.0001, tops))}]}))
    assert piece.tokens[0].probability == 1
    assert [each.text for each in piece.tokens[0].likeliest] == ["8", "7", "6", "5", "4"]

"""Whatever JSON a stranger's server writes: a chunk or one of two errors. Wherever it cuts its text: whole letters."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.engines.remoting.connection import GarbageError
from playground.engines.remoting.scores import ScoredPieces
from playground.engines.remoting.texts import RemoteAnswer
from playground.engines.remoting.told import ServerSaidError, Told, read_chunk

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
OF_AN_ANSWER = ("choices", "text", "delta", "content", "finish_reason", "error", "message", "usage", "prompt_tokens")
OF_ITS_TOKENS = ("logprobs", "tokens", "token_logprobs", "top_logprobs", "token", "logprob", "token_ids")
NAMES = st.sampled_from((*OF_AN_ANSWER, *OF_ITS_TOKENS))
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=25
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(st.dictionaries(NAMES, ANYTHING, max_size=5), max_size=2)},
    optional={"usage": ANYTHING, "error": ANYTHING},
)


@given(ANYTHING | CHUNKS)
def test_json_of_any_shape_is_a_chunk_or_an_error_that_we_know(payload: Any) -> None:
    with suppress(GarbageError, ServerSaidError):
        told = read_chunk(payload)
        assert isinstance(told, Told)
        assert isinstance(told.text, str)
        assert all(0 <= token.probability <= 1 for token in told.tokens)
        scored = ScoredPieces()
        pieces = [*scored.push(told), *scored.flush()]
        assert sum(len(piece.tokens) for piece in pieces) == len(told.tokens)


def test_numbers_and_nests_without_bounds() -> None:
    huge = {"tokens": ["a"], "token_logprobs": [-(10**400)]}
    assert read_chunk({"choices": [{"text": "a", "logprobs": huge}]}).tokens == ()
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    with pytest.raises(ServerSaidError):
        read_chunk({"error": nest})
    while nest:  # else taking it apart is recursive
        nest = nest.pop()


@pytest.mark.parametrize("odd", [-1, 10**9 + 1, 10**400, True, 1.0, "7", None])
def test_a_cost_that_is_no_count_of_tokens_is_none(odd: Any) -> None:
    for prompt, completion in ((odd, 1), (1, odd)):
        payload = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
        assert read_chunk(payload).usage is None
    assert read_chunk({"usage": {"prompt_tokens": 0, "completion_tokens": 10**9}}).usage == (0, 10**9)


def test_an_answer_that_nobody_asked_for_is_not_read() -> None:
    others = [{"index": 1, "text": "b", "finish_reason": "stop"}, {"index": 2, "text": "c"}]
    assert read_chunk({"choices": [*others, {"index": 0, "text": "a"}]}).text == "a"
    assert not read_chunk({"choices": others}).says_something
    assert read_chunk({"choices": [{"text": "a"}]}).text == "a"


@pytest.mark.parametrize("odd", [-1, 2**31, 10**400, True, 1.0, "7", None])
def test_ids_of_which_one_is_none_are_left_out(odd: Any) -> None:
    assert read_chunk({"choices": [{"text": "a", "token_ids": [5, odd]}]}).token_ids == ()
    assert read_chunk({"choices": [{"text": "a", "token_ids": [0, 2**31 - 1]}]}).token_ids == (0, 2**31 - 1)


@given(
    st.text(alphabet=st.sampled_from("aக ிக्षक्ष각👩‍🇰🇷\u0301\ufffd"), max_size=30),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_a_text_cut_between_any_two_halves_of_its_letters_comes_out_whole(text: str, places: list[int]) -> None:
    units = text.encode("utf-16-le")
    cuts = sorted({0, len(units), *(2 * place for place in places if 2 * place < len(units))})
    parts = [units[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(cuts)]
    answer = RemoteAnswer(())
    deltas = [*map(answer.read, parts), answer.finish("stop")]
    assert "".join(deltas) == text
    assert all(delta.encode() is not None for delta in deltas)

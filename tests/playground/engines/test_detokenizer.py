"""Streaming a text token by token gives the text, at a bounded cost a token, with both kinds of real tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts_of_the_world import SENTENCES, assert_whole, byte_level_tokenizer, fallback_tokenizer, texts
from transformers import PreTrainedTokenizerFast

from playground.engines.text.answer import Answer
from playground.engines.text.detokenizer import HELD_TOKENS, REPLACEMENT, Detokenizer

KINDS = {"byte_level": byte_level_tokenizer, "fallback": fallback_tokenizer}
EOS = 0


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def stream(tokenizer: PreTrainedTokenizerFast, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Answer]:
    """The deltas of an answer whose tokens come one by one; the last one ends it."""
    answer = Answer(tokenizer, {tokenizer.eos_token_id}, stop)
    deltas = []
    for count in range(1, len(ids) + 1):
        deltas.append(answer.read(ids[:count], finished=count == len(ids)))
        if answer.finish_reason:
            break
    return deltas, answer


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_sentences_arrive_whole(tokenizer: PreTrainedTokenizerFast, sentence: str) -> None:
    ids = tokenizer.encode(sentence, add_special_tokens=False)
    deltas, _ = stream(tokenizer, ids)
    assert "".join(deltas) == decode(tokenizer, ids)
    assert REPLACEMENT not in "".join(deltas)
    assert_whole(deltas)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts())
def test_any_text_arrives_whole(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    ids = without_end(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    if ids:
        deltas, _ = stream(tokenizer, ids)
        assert "".join(deltas) == decode(tokenizer, ids)
        assert_whole(deltas)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts(), data=st.data())
def test_an_answer_cut_anywhere_shows_no_half_character(kind: str, text: str, data: st.DataObject) -> None:
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode(text, add_special_tokens=False)
    ids = without_end(tokenizer, ids[: data.draw(st.integers(0, len(ids)))])
    if ids:
        deltas, answer = stream(tokenizer, ids)
        assert "".join(deltas) == without_half_character(tokenizer, ids)
        assert answer.finish_reason == "length"


def without_end(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    """Text may spell the end token; as the last one it is no text, which is tested by itself below."""
    while ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids


def without_half_character(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    if tokenizer is byte_level_tokenizer():
        return decode(tokenizer, ids).rstrip(REPLACEMENT)
    # One missing byte spoils all characters of a run of byte tokens, so the bytes of the last one are left out here.
    whole = next(n for n in range(len(ids), -1, -1) if REPLACEMENT not in decode(tokenizer, ids[:n]))
    assert whole > len(ids) - 4
    return decode(tokenizer, ids[:whole])


@given(ids=st.lists(st.integers(2, 399), max_size=60))
def test_any_tokens_of_a_byte_level_vocabulary_give_the_full_decode(ids: list[int]) -> None:
    detokenizer = Detokenizer(byte_level_tokenizer())
    out = detokenizer.push(ids) + detokenizer.flush(keep_broken=True)
    assert out == decode(byte_level_tokenizer(), ids)


@given(ids=st.lists(st.integers(0, 379), max_size=60))
def test_any_tokens_of_a_fallback_vocabulary_end_in_text(ids: list[int]) -> None:
    """Broken bytes may show as U+FFFD; what surrounds them is there, and in order."""
    tokenizer = fallback_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    out = detokenizer.push(ids) + detokenizer.flush(keep_broken=True)
    sound = decode(tokenizer, [i for i in ids if not 3 <= i < 259])
    if decode(tokenizer, ids).count(REPLACEMENT) == 0:
        assert out == decode(tokenizer, ids)
    kept = iter(out)
    assert all(character in kept for character in sound.lstrip(" "))


def test_a_broken_byte_leaves_the_characters_before_it_alone() -> None:
    tokenizer = fallback_tokenizer()
    syllable = [3 + byte for byte in "뷁".encode()]
    ids = [*syllable, 3 + 0xFF, *tokenizer.encode("code", add_special_tokens=False)]
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push(ids) == f"뷁{REPLACEMENT} code"


def test_a_written_replacement_character_is_shown() -> None:
    tokenizer = byte_level_tokenizer()
    ids = tokenizer.encode(f"a{REPLACEMENT}b{REPLACEMENT}", add_special_tokens=False)
    deltas, answer = stream(tokenizer, [*ids, EOS])
    assert "".join(deltas) == f"a{REPLACEMENT}b{REPLACEMENT}"
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("special", ["<|USER|>", "</s>", "<s>"])
def test_special_tokens_in_the_middle_are_text(tokenizer: PreTrainedTokenizerFast, special: str) -> None:
    ids = tokenizer.encode(f"a {special} b", add_special_tokens=False)
    deltas, _ = stream(tokenizer, [*ids, tokenizer.eos_token_id])
    assert "".join(deltas) == decode(tokenizer, ids)
    assert special in "".join(deltas)


def test_the_final_end_token_is_no_text_but_is_counted() -> None:
    tokenizer = byte_level_tokenizer()
    ids = tokenizer.encode("done", add_special_tokens=False)
    deltas, answer = stream(tokenizer, [*ids, EOS])
    assert "".join(deltas) == "done"
    assert len(answer.token_ids) == len(ids) + 1


def test_a_stop_string_across_tokens_ends_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("값이 싼 닭갈비를 읽고", add_special_tokens=False)
    deltas, answer = stream(tokenizer, ids, stop=("닭갈",))
    assert "".join(deltas) == "값이 싼 "
    assert answer.finish_reason == "stop"
    assert len(answer.token_ids) < len(ids)


def test_what_began_like_a_stop_string_comes_out_at_the_end(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("नमस्ते, ज्ञान", add_special_tokens=False)
    deltas, answer = stream(tokenizer, ids, stop=("ज्ञान है",))
    assert "".join(deltas) == "नमस्ते, ज्ञान"
    assert answer.finish_reason == "length"


def test_tokens_that_come_together_make_one_delta(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(SENTENCES["Korean"], add_special_tokens=False)
    answer = Answer(tokenizer, {EOS}, ())
    first = answer.read(ids[:-1], finished=False)
    assert first + answer.read(ids, finished=True) == SENTENCES["Korean"]
    assert len(first) >= len(SENTENCES["Korean"]) - 2


class Counting:
    """A tokenizer that keeps how many ids it was asked to decode at a time."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.lengths: list[int] = []

    def decode(self, ids: list[int], **options: Any) -> str:
        self.lengths.append(len(ids))
        return self._tokenizer.decode(ids, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["text", "broken bytes", "nothing"])
def test_the_cost_of_a_token_does_not_grow(kind: str, what: str) -> None:
    tokenizer = Counting(KINDS[kind]())
    plain = KINDS[kind]()
    ids = {
        "text": plain.encode(" ".join(SENTENCES.values()) * 3, add_special_tokens=False),
        "broken bytes": [plain.convert_tokens_to_ids("ÿ" if kind == "byte_level" else "<0xFF>")] * 1000,
        "nothing": [100_000] * 1000,  # rows of an embedding padded beyond the vocabulary
    }[what]
    detokenizer = Detokenizer(tokenizer)  # type: ignore[arg-type]
    out = detokenizer.push(ids) + detokenizer.flush(keep_broken=True)
    assert max(tokenizer.lengths) <= 2 * (HELD_TOKENS + 1)
    assert len(tokenizer.lengths) <= 3 * len(ids)
    assert out == {"text": out, "broken bytes": REPLACEMENT * 1000, "nothing": ""}[what]

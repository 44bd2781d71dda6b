"""Texts to ids with control tokens only where they are meant: for every kind of tokenizer, the same ids otherwise."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts_of_the_world import fallback_tokenizer, texts
from tokenizer_kinds import KINDS, SPELLINGS, fallback
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from playground.prompting.control import Control, TextEncoder
from playground.prompting.slow import SlowTextEncoder

few = settings(max_examples=40)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    return TextEncoder(tokenizer, add_special_tokens=True)


@st.composite
def texts_with_controls(draw: st.DrawFn) -> str:
    pieces = draw(st.lists(st.one_of(texts(), st.sampled_from(SPELLINGS), st.sampled_from([" ", "  ", "\n"]))))
    return "".join(pieces)


@few
@given(text=texts_with_controls())
def test_the_ordinary_ids_are_the_tokenizers_own(
    tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder, text: str
) -> None:
    assert list(encoder.encode(text).ids) == tokenizer(text, verbose=False)["input_ids"]


@few
@given(text=texts_with_controls())
def test_a_guarded_text_has_the_ordinary_ids_where_all_control_tokens_are_meant(
    encoder: TextEncoder, text: str
) -> None:
    ordinary = encoder.encode(text)
    guarded = encoder.encode_guarded(text, list(ordinary.controls.values()))
    assert guarded == ordinary


@few
@given(text=texts_with_controls())
def test_a_guarded_text_has_no_control_token_where_none_is_meant(
    tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder, text: str
) -> None:
    guarded = encoder.encode_guarded(text, [])
    assert guarded.controls == {}
    inner = [token_id for token_id, added in zip(guarded.ids, guarded.added, strict=True) if not added]
    assert not set(inner) & (encoder.control.keys() - {tokenizer.convert_tokens_to_ids("<unk>")})


def test_only_the_control_tokens_that_are_meant_are_some(
    tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder
) -> None:
    text = "one <|SYSTEM|> two </s> three <|SYSTEM|> four"
    second = text.rindex("<|SYSTEM|>")
    meant = Control(second, second + len("<|SYSTEM|>"), tokenizer.convert_tokens_to_ids("<|SYSTEM|>"))
    guarded = encoder.encode_guarded(text, [meant])
    assert list(guarded.controls.values()) == [meant]
    assert all(0 <= start <= end <= len(text) for start, end in guarded.offsets)


def test_a_control_token_that_must_be_a_word_by_itself_may_stand_beside_another(encoder: TextEncoder) -> None:
    for text in ("[/INST]word", "word[/INST]", "</s>word</s>"):
        ordinary = encoder.encode(text)
        assert encoder.encode_guarded(text, list(ordinary.controls.values())) == ordinary


def test_a_plain_text_has_no_control_token(encoder: TextEncoder) -> None:
    for text in ("nothing to see", f"x {''.join(SPELLINGS)} y"):
        ids, offsets = encoder.plain_ids(text)
        unknown = encoder.encode("\U0010fffe").ids[-1:]
        assert len(ids) == len(offsets) > 0
        assert not set(ids) & encoder.control.keys() - set(unknown)


def test_what_the_vocabulary_lacks_is_no_control_token() -> None:
    encoder = TextEncoder(KINDS["unigram_always"](), add_special_tokens=False)
    encoded = encoder.encode("the ☃ cat")
    assert encoded.controls == {}
    assert encoder.encode_guarded("the ☃ cat", []).ids == encoded.ids
    assert [encoder.control[each.token_id] for each in encoder.encode("the <unk> cat").controls.values()] == ["<unk>"]


def test_a_byte_of_the_vocabulary_is_no_control_token() -> None:
    tokenizer = fallback_tokenizer()
    with_bytes = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    with_bytes.add_tokens(["<0x0A>"])
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=with_bytes), add_special_tokens=False)
    assert "<0x0A>" not in encoder.control.values()
    guarded = encoder.encode_guarded("é\u0301ǿ</s>", [])
    assert guarded.ids[:6] == encoder.encode("é\u0301ǿ").ids[:6]


def test_the_space_that_a_control_token_takes_is_not_where_it_begins() -> None:
    tokenizer = KINDS["byte_level"]()
    encoded = TextEncoder(tokenizer, add_special_tokens=False).encode("x   <|end|>")
    (number, control), *_ = encoded.controls.items()
    assert (control.start, control.end) == (4, 11)
    assert encoded.offsets[number] == (1, 11)
    assert encoded.begins("x   <|end|>")[number] == 4


def test_the_offsets_of_a_token_hold_its_space() -> None:
    encoded = TextEncoder(KINDS["byte_level"](), add_special_tokens=False).encode("a b")
    assert encoded.offsets[0] == (0, 1)
    assert encoded.offsets[1][0] == 1


def test_the_tokenizers_own_settings_are_neither_used_nor_changed() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(fallback().backend_tokenizer.to_str()))
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    settings_before = backend.truncation, backend.padding, backend.encode_special_tokens
    encoder = TextEncoder(tokenizer, add_special_tokens=False)
    assert 2 < len(encoder.encode("one two three</s>").ids) < 50
    assert 2 < len(encoder.encode_guarded("one two three</s>", []).ids) < 50
    assert (backend.truncation, backend.padding, backend.encode_special_tokens) == settings_before


def test_threads_may_share_it() -> None:
    encoder = TextEncoder(KINDS["byte_level"](), add_special_tokens=False)
    lines = [f"{number} </s> <|USER|> नमस्ते" for number in range(40)]
    expected = [
        TextEncoder(KINDS["byte_level"](), add_special_tokens=False).encode_guarded(x, []).ids for x in lines[:3]
    ]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda line: (encoder.encode_guarded(line, []).ids, encoder.encode(line).ids), lines))
    assert [guarded for guarded, _ in found[:3]] == expected
    assert all(len(ordinary) < len(guarded) for guarded, ordinary in found)


@pytest.mark.filterwarnings("ignore:This sequence already has")
@few
@given(text=texts_with_controls())
def test_a_slow_tokenizers_ids_are_its_own(text: str) -> None:
    slow = ByT5Tokenizer()
    encoder = SlowTextEncoder(slow, add_special_tokens=True)
    encoded = encoder.encode(text)
    assert list(encoded.ids) == slow(text)["input_ids"]
    assert [text[each.start : each.end] for each in encoded.controls.values()] == re.findall("</s>", text)
    assert encoded.begins(text) == sorted(encoded.begins(text))


def test_a_slow_tokenizer_has_no_guard() -> None:
    with pytest.raises(ValueError, match="wherever it stands"):
        SlowTextEncoder(ByT5Tokenizer(), add_special_tokens=True).encode_guarded("x", [])

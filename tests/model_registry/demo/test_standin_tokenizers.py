"""The stand-ins' tokenizers lose nothing, of the corpus or of any other text, and number the specials like Llama's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_registry.demo.corpus import load_language, load_shared, pairs
from model_registry.demo.samples import encode_prompt
from model_registry.demo.standins import STAND_INS

TOKENIZERS: dict[str, PreTrainedTokenizerFast] = {
    name: AutoTokenizer.from_pretrained(stand_in.folder, config=stand_in.model_config())
    for name, stand_in in STAND_INS.items()
}
LANGUAGES = sorted({code for stand_in in STAND_INS.values() for code in [*stand_in.languages, *stand_in.foreign]})
# U+2581 stands for a space in such tokenizers, and the three specials are tokens wherever they appear.
ANY_TEXT = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])).filter(
    lambda text: not any(special in text for special in ("<unk>", "<s>", "</s>"))
)


def round_trip(name: str, text: str) -> str:
    tokenizer = TOKENIZERS[name]
    return str(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_corpus_survives(name: str, language: str) -> None:
    for question, answer in pairs(load_language(language), STAND_INS[name].words()):
        assert round_trip(name, question) == question
        assert round_trip(name, answer) == answer


@pytest.mark.parametrize("name", STAND_INS)
def test_shared_texts_survive(name: str) -> None:
    shared = load_shared()
    for text in [*shared.systems, *shared.foreign_asks, *shared.foreign_says.values()]:
        assert round_trip(name, text) == text


@pytest.mark.parametrize("name", STAND_INS)
@settings(max_examples=150)
@given(text=ANY_TEXT)
def test_any_text_survives(name: str, text: str) -> None:
    assert round_trip(name, text) == text


@pytest.mark.parametrize("name", STAND_INS)
def test_layout_is_llamas(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert tokenizer.convert_ids_to_tokens([3, 258]) == ["<0x00>", "<0xFF>"]
    assert len(tokenizer) == STAND_INS[name].config["vocab_size"]
    assert tokenizer("\n", add_special_tokens=False)["input_ids"][-1] == 3 + ord("\n")


@pytest.mark.parametrize("name", STAND_INS)
def test_prompt_begins_with_one_bos(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = encode_prompt(STAND_INS[name], tokenizer, [{"role": "user", "content": "Who are you?"}])
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_markers_of_krutrims_format_are_plain_text() -> None:
    tokenizer = TOKENIZERS["krutrim"]
    assert set(tokenizer.all_special_tokens) == {"<unk>", "<s>", "</s>"}
    assert round_trip("krutrim", "<|USER|> a\n<|RESPONSE|>\n") == "<|USER|> a\n<|RESPONSE|>\n"

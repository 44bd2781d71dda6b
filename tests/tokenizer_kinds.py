"""Small tokenizers of every kind that causal models come with, all with the same control tokens.

BPE over bytes as GPT-2's, BPE with byte fallback as Llama's, Unigram as SentencePiece's, words as BERT's. Some of the
control tokens take white space with them, are matched after normalising, or only as whole words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from scripts_of_the_world import SENTENCES, byte_level_tokenizer, fallback_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
CONTROLS = [
    AddedToken(BOS, special=True),
    AddedToken(EOS, special=True),
    AddedToken("<|USER|>", special=True),
    AddedToken("<|SYSTEM|>", special=True, normalized=False),
    AddedToken("<|RESPONSE|>", special=True, rstrip=True),
    AddedToken("<|end|>", special=True, lstrip=True),
    AddedToken("[INST]", special=False, normalized=True),
    AddedToken("[/INST]", special=False, normalized=False),
    AddedToken("<think>", special=False, normalized=True, lstrip=True, rstrip=True),
    AddedToken("</think>", special=False, normalized=False),
    AddedToken("word", special=False, single_word=True),
    AddedToken("    ", special=False, normalized=False),
]
SPELLINGS = [token.content for token in CONTROLS if token.content.strip()]
TEXTS = [*SENTENCES.values(), *SPELLINGS, "the cat is here and the words are there"]


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_tokens(CONTROLS)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)


def _with(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return _wrapped(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's, with offsets that leave out the spaces that its tokens begin with."""
    made = _with(byte_level_tokenizer())
    made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


@cache
def byte_level_that_normalises() -> PreTrainedTokenizerFast:
    made = _with(byte_level_tokenizer())
    made.backend_tokenizer.normalizer = normalizers.NFC()
    return made


@cache
def fallback() -> PreTrainedTokenizerFast:
    """As Llama's, which begins each stretch between control tokens with a space of its own."""
    return _with(fallback_tokenizer())


@cache
def fallback_with_merged_controls() -> PreTrainedTokenizerFast:
    """Its vocabulary would make some control tokens out of plain letters, too, by merging them."""
    state = json.loads(fallback_tokenizer().backend_tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    for spelling in ("<s>", "[/INST]"):
        for end in range(1, len(spelling)):
            for piece in (spelling[:end], spelling[end], spelling[: end + 1]):
                vocab.setdefault(piece, len(vocab))
            merges.insert(end - 1, [spelling[:end], spelling[end]])
    return _wrapped(Tokenizer.from_str(json.dumps(state)))


def _unigram(prepend_scheme: str, *, byte_fallback: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))] if byte_fallback else ["<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    state = json.loads(backend.to_str())
    state["model"]["byte_fallback"] = byte_fallback
    state["added_tokens"] = state["added_tokens"][:1]
    return _wrapped(Tokenizer.from_str(json.dumps(state)))


@cache
def unigram_first() -> PreTrainedTokenizerFast:
    """A space of its own before the whole text only."""
    return _unigram("first", byte_fallback=True)


@cache
def unigram_always() -> PreTrainedTokenizerFast:
    return _unigram("always", byte_fallback=False)


@cache
def words() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, no private characters, words and their endings."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return _wrapped(backend)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    made.__name__: made
    for made in (
        byte_level,
        byte_level_that_normalises,
        fallback,
        fallback_with_merged_controls,
        unigram_first,
        unigram_always,
        words,
    )
}

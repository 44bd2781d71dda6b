"""Text in the scripts of our models, and tokenizers of the two usual kinds, trained on it.

The vocabularies are small, so that many characters are split into bytes: that is where streaming goes wrong.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache

import regex
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = {
    "Korean": "안녕하세요, 저는 서울에 삽니다. 값이 싼 닭갈비를 읽고 뷁!",
    "conjoining jamo": "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165 \u1112\u1161\u11ab",
    "Devanagari": "नमस्ते, क्षत्रिय ज्ञान श्रृंखला में द्वन्द्व और र्‍य है।",
    "Bengali": "আমি বাংলায় গান গাই, স্বাস্থ্য ও ক্ষ্মতা, র‍্যাব।",
    "Gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ, ਪੜ੍ਹਨਾ ਅਤੇ ਸ੍ਵੈ।",
    "Gujarati": "નમસ્તે, ક્ષમા કરશો, જ્ઞાન અને શ્રદ્ધા.",
    "Oriya": "ନମସ୍କାର, ଓଡ଼ିଶାର କ୍ଷେତ୍ର ଓ ଜ୍ଞାନ।",
    "Tamil": "வணக்கம், ஸ்ரீ க்ஷேத்திரம், கொள்ளை, தமிழ்.",
    "Telugu": "నమస్కారం, క్షేత్రం, జ్ఞానం, స్త్రీ.",
    "Kannada": "ನಮಸ್ಕಾರ, ಕ್ಷೇತ್ರ, ಜ್ಞಾನ, ಸ್ತ್ರೀ.",
    "Malayalam": "നമസ്കാരം, ക്ഷേത്രം, ശ്രദ്ധ, ന്‍റെ, സ്ത്രീ.",
    "emoji": "👨‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇮🇳🇰🇷🇮 ☝️ 1️⃣ ❤️‍🔥 🧑🏿‍🚀",
    "combining": "e\u0301a\u0308\u0304o\u0302\u0323 Z\u0351\u036b\u0343 x",
    "lines": "one\r\ntwo\n\r\n\rthree\t four  five",
    "code": "def f(x):\n    return {'a': x <= 1}  # <|USER|> </s> $$x$$",
}


ZWJ = "\u200d"


def assert_whole(pieces: list[str]) -> None:
    """No piece ends inside a cluster, nor behind a virama or joiner that the next letter joins."""
    text = "".join(pieces)
    boundaries = {match.end() for match in regex.finditer(r"\X", text)}
    end = 0
    for piece in pieces[:-1]:
        end += len(piece)
        if not piece or end == len(text):
            continue
        assert end in boundaries, f"{text[:end]!r} | {text[end:]!r}"
        dangling = unicodedata.combining(text[end - 1]) == 9 or text[end - 1] == ZWJ
        assert not (dangling and unicodedata.category(text[end])[0] == "L"), f"{text[:end]!r} | {text[end:]!r}"


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Pieces of the sentences, cut anywhere and mixed, with stray characters between."""
    pieces = draw(st.lists(st.one_of(_cuttings(), st.text(max_size=4)), max_size=8))
    return "".join(pieces).replace("\ufffd", "")


@st.composite
def _cuttings(draw: st.DrawFn) -> str:
    sentence = draw(st.sampled_from(sorted(SENTENCES.values())))
    start = draw(st.integers(0, len(sentence) - 1))
    return sentence[start : start + draw(st.integers(1, 16))]


@cache
def byte_level_tokenizer(vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """As GPT-2's and Polyglot's: every character is its UTF-8 bytes, and tokens may end inside one.

    All tests of a process share it: whoever changes it changes a copy.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|USER|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(SENTENCES.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@cache
def fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama's: pieces with U+2581 for spaces, a first space that decoding drops, bytes for unknown characters."""
    common = [SENTENCES[name] for name in ("Korean", "Devanagari", "code")]
    source = Tokenizer(models.BPE(unk_token="<unk>"))
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    source.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kept = _most_common("".join(common).replace(" ", "▁"), 60)
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=kept, limit_alphabet=60, special_tokens=special, show_progress=False
    )
    source.train_from_iterator(common, trainer)
    return _with_byte_fallback(source, normalizer)


def _most_common(text: str, count: int) -> list[str]:
    """Chosen here, because the trainer breaks ties by chance: another alphabet, and another tokenizer, at each run."""
    return sorted(sorted(set(text)), key=text.count, reverse=True)[:count]


def _with_byte_fallback(source: Tokenizer, normalizer: normalizers.Normalizer) -> PreTrainedTokenizerFast:
    model = json.loads(source.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=False
    )

"""Tokens as pieces of whole grapheme clusters, for tokenizers of every kind; counts; the vocabulary's spelling."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from scripts_of_the_world import SENTENCES, byte_level_tokenizer, fallback_tokenizer, texts
from tiny import byte_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.prompting.prompt import Piece, TokenCounts, TokenizedText
from playground.prompting.tokens import TokenLine, by_line, byte_ids, counts, names, pieces

FAMILY = "👨‍👩‍👧‍👦"


def normalising() -> PreTrainedTokenizerFast:
    """Composes and lower-cases letters, drops accents, outer space and every "x", knows few words, adds tokens."""
    words = ["<unk>", "[CLS]", "[SEP]", "one", "two", "def", "안녕하세요", "##s", "fi", "##fi"]
    letters = sorted(set("".join(SENTENCES.values()).lower()))
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*words, *letters, *(f"##{each}" for each in letters)]))}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    parts = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFKC(), normalizers.Lowercase()]
    backend.normalizer = normalizers.Sequence([*parts, normalizers.Strip(), normalizers.Replace("x", "")])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]", bos_token="[CLS]"
    )


def unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece's other model: scored pieces, a space before the first word, no bytes."""
    letters = sorted(set("".join(SENTENCES.values())) - {" "})
    scored = [("<unk>", 0.0), ("▁", -2.0), ("▁one", -3.0), ("two", -3.0), ("값", -1.0), *((c, -5.0) for c in letters)]
    backend = Tokenizer(models.Unigram(list(dict(scored).items()), unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def standin(model_id: str) -> PreTrainedTokenizerFast:
    return load_encoder(Registry.load().get(model_id)).tokenizer


TOKENIZERS = {
    "Krutrim's stand-in": standin("demo-krutrim"),
    "KULLM3's stand-in": standin("demo-kullm3"),
    "byte-level": byte_level_tokenizer(),
    "byte fallback": fallback_tokenizer(),
    "bytes": byte_tokenizer(adds_bos=True),
    "normalising": normalising(),
    "unigram": unigram(),
}

any_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def cut(name: str, text: str, controls: bool = False) -> tuple[list[int], list[tuple[int, int]], tuple[Piece, ...]]:
    tokenizer = TOKENIZERS[name]
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    return ids, offsets, pieces(text, ids, offsets, tokenizer, set(tokenizer.all_special_ids) if controls else ())


def boxes(name: str, text: str) -> list[tuple[str, int, str]]:
    """(characters, how many tokens, kind) of each piece."""
    found = cut(name, text, controls=True)[2]
    return [(text[piece.start : piece.end], piece.end_token - piece.first_token, piece.kind) for piece in found]


def assert_covered(text: str, ids: Sequence[int], found: Sequence[Piece]) -> None:
    place = token = 0
    for piece in found:
        assert (piece.start, piece.first_token) == (place, token)
        place, token = piece.end, piece.end_token
        assert piece.start <= piece.end
        assert piece.first_token <= piece.end_token
    assert (place, token) == (len(text), len(ids))


@any_tokenizer
@given(text=st.one_of(texts(), st.text(max_size=40)))
@example(text="")
@example(text="  x x  ")
@example(text="xx")
@example(text="ﬁﬁ \u0344")
@example(text="\r\n\r\n")
@example(text="</s>\u0301a")
@example(text="\u0301")
@example(text=FAMILY * 2)
def test_pieces_cover_text_and_tokens_once_in_whole_clusters(name: str, text: str) -> None:
    for controls in (False, True):
        ids, offsets, found = cut(name, text, controls)
        assert_covered(text, ids, found)
        assert all(piece.first_token < piece.end_token for piece in found) or not ids
        whole = {0, *(cluster.end() for cluster in regex.finditer(r"\X", text))}
        if controls:
            special = set(TOKENIZERS[name].all_special_ids)
            whole |= {edge for token, place in zip(ids, offsets, strict=True) if token in special for edge in place}
        assert {edge for piece in found for edge in (piece.start, piece.end)} <= whole


@any_tokenizer
@given(text=st.one_of(texts(), st.text(max_size=30)))
@example(text="क्षत्रिय" + FAMILY)
def test_no_piece_could_be_two(name: str, text: str) -> None:
    _, offsets, found = cut(name, text)
    whole = {0, *(cluster.end() for cluster in regex.finditer(r"\X", text))}
    for piece in found:
        for index in range(piece.first_token + 1, piece.end_token):
            inside = [place for place in offsets if place[0] < place[1]]
            before = [place for place in offsets[:index] if place[0] < place[1]]
            after = [place for place in offsets[index:] if place[0] < place[1]]
            if not inside or not before or not after:
                continue
            low, high = max(end for _, end in before), min(start for start, _ in after)
            assert not any(low <= place <= high for place in whole), (text, piece, index)


@pytest.mark.parametrize("name", ["Krutrim's stand-in", "KULLM3's stand-in", "bytes"])
def test_a_syllable_of_byte_tokens_is_one_piece(name: str) -> None:
    found = boxes(name, "a 뷁 b")
    assert ("뷁", 3, "bytes") in found
    assert "".join(part for part, _, _ in found) == "a 뷁 b"


def test_a_family_of_25_tokens_is_one_piece() -> None:
    assert boxes("KULLM3's stand-in", f"a{FAMILY}b")[-2:] == [(FAMILY, 25, "bytes"), ("b", 1, "text")]


def test_a_cluster_of_several_tokens_is_one_piece() -> None:
    assert boxes("KULLM3's stand-in", "a क्ष।")[-2:] == [("क्ष", 3, "text"), ("।", 1, "text")]
    assert ("क्ष", 2, "text") in boxes("byte fallback", "\nक्ष।")


def test_a_byte_level_token_of_two_half_characters_ties_both() -> None:
    found = boxes("byte-level", f"a{FAMILY}b")
    assert found[0] == ("a", 1, "text")
    assert [part for part, _, _ in found] == ["a", FAMILY, "b"]
    assert found[1][2] == "bytes"


def test_what_the_tokenizer_adds_is_a_piece_without_text() -> None:
    assert boxes("bytes", "ab")[0] == ("", 1, "tokenizer")
    assert boxes("normalising", "one  ")[::2] == [("", 1, "tokenizer"), ("", 1, "tokenizer")]
    assert boxes("normalising", "  one  ")[1] == ("  one  ", 1, "text")


def test_a_control_token_stays_alone_whatever_leans_on_it() -> None:
    assert boxes("bytes", "a</s>\u0301b") == [
        ("", 1, "tokenizer"), ("a", 1, "text"), ("</s>", 1, "control"), ("\u0301", 2, "bytes"), ("b", 1, "text"),
    ]  # fmt: skip


def test_an_unknown_letter_is_no_control_token() -> None:
    assert boxes("unigram", "값鬱")[-1] == ("鬱", 1, "text")
    assert boxes("unigram", "값<unk>")[-1] == ("<unk>", 1, "control")


def test_tokens_without_any_place_are_one_piece() -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert pieces("ab", [100, 101], [(0, 0), (0, 0)], tokenizer) == (Piece(0, 2, 0, 2, "text"),)
    assert pieces("ab", [], [], tokenizer) == (Piece(0, 2, 0, 0, "text"),)
    assert pieces("", [], [], tokenizer) == ()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("bytes", "뷁a\n", TokenCounts(6, 3, 3)),  # with the token that it adds
        ("KULLM3's stand-in", "뷁 " + FAMILY, TokenCounts(31, 3, 28)),
        ("byte-level", "뷁a\n", TokenCounts(5, 3, 3)),
        ("byte-level", "<|USER|>é", TokenCounts(3, 9, 2)),
        ("normalising", "one twos", TokenCounts(5, 8, 0)),
    ],
)
def test_characters_are_counted_as_people_count_and_bytes_as_parts(name: str, text: str, expected: TokenCounts) -> None:
    ids, _, _ = cut(name, text)
    assert counts(text, ids, TOKENIZERS[name]) == expected


def test_shares_of_an_empty_text_are_none() -> None:
    none = counts("", [], TOKENIZERS["bytes"])
    assert (none.tokens_per_character, none.byte_share) == (0, 0)


@given(st.characters(exclude_categories=["Cs"]))
def test_a_characters_bytes_are_parts_in_either_spelling(letter: str) -> None:
    is_ascii = ord(letter) < 128
    for name, added in (("bytes", 1), ("byte-level", 0)):
        ids = cut(name, letter)[0][added:]
        length = counts(letter, ids, TOKENIZERS[name]).byte_tokens
        assert length == (0 if is_ascii or len(ids) == 1 else len(ids)), (name, letter)


def test_names_are_the_vocabularys_own() -> None:
    tokenizer = TOKENIZERS["byte fallback"]
    ids = tokenizer("</s>\n뷁")["input_ids"]
    assert names([*ids, 99_999], tokenizer)[0] == "</s>"
    assert names([*ids, 99_999], tokenizer)[-4:] == ("<0xEB>", "<0xB7>", "<0x81>", "")
    assert names([], tokenizer) == ()


def tokenized(name: str, text: str) -> TokenizedText:
    tokenizer = TOKENIZERS[name]
    ids, _, found = cut(name, text)
    total = counts(text, ids, tokenizer)
    return TokenizedText(text, tuple(ids), names(ids, tokenizer), found, total, byte_ids(ids, tokenizer))


@any_tokenizer
@given(text=st.one_of(texts(), st.text(st.sampled_from("a\n\r ▁क्뷁"), max_size=20)))
@example(text="\n\n")
@example(text="a\r\nb\n")
def test_lines_are_all_of_the_text_and_its_counts_together(name: str, text: str) -> None:
    whole = tokenized(name, text)
    lines = by_line(whole)
    assert "".join(text[line.start : line.end] for line in lines) == text
    assert all(text[line.start : line.end].count("\n") <= 1 for line in lines)
    if text:
        assert tuple(piece for line in lines for piece in line.pieces) == whole.pieces[: total_pieces(lines)]
        left = whole.pieces[total_pieces(lines) :]
        assert all(piece.start == len(text) for piece in left)
        missed = sum(piece.end_token - piece.first_token for piece in left)
        assert sum(line.counts.tokens for line in lines) == whole.counts.tokens - missed
        assert sum(line.counts.characters for line in lines) == whole.counts.characters
        assert sum(line.counts.byte_tokens for line in lines) == whole.counts.byte_tokens


def total_pieces(lines: Sequence[TokenLine]) -> int:
    return sum(len(line.pieces) for line in lines)

"""Tokens side by side: whose text is laid out, line by line, and which model needs fewest."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import gradio as gr
import pytest
from desk import Desk
from markup import read

from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.prompting.prompt import TokenCounts, TokenizedText
from playground.ui.lens import side_by_side
from playground.ui.lens.side_by_side import NOTHING, SideBySideHandlers, merged
from playground.ui.lens.side_by_side_view import MOST_LAID, Column, table, verdict

TEXT = "नमस्ते क्ष\n안녕하세요 뷁\n\n<b>👨‍👩‍👧‍👦</b>"


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def lay(desk: Desk, typed: str, handlers: SideBySideHandlers | None = None) -> str:
    own = handlers or SideBySideHandlers(desk.pool.registry, desk.pool)  # type: ignore[arg-type]
    panels = [part for index in range(2) for part in (desk.states[index], desk.models[index])]
    is_open, view = await own.open(desk.shown, typed, *panels)
    assert is_open is True
    return view


def tokens(count: int) -> TokenizedText:
    return TokenizedText("x", (1,) * count, ("x",) * count, (), TokenCounts(count, 1, 0))


def columns_of(text: str) -> list[Column]:
    """The stand-ins' own."""
    registry = Registry.load()
    encoders = [load_encoder(registry.get(model_id)) for model_id in ("demo-krutrim", "demo-kullm3")]
    return [Column(encoder.spec.name, encoder.tokenize(text)) for encoder in encoders]


async def test_what_is_typed_is_laid_out_or_else_the_last_prompt(desk: Desk) -> None:
    assert NOTHING in read(await lay(desk, " ")).text
    assert "What is typed, by itself." in await lay(desk, "typed")
    await desk.send("asked")
    await desk.answer()
    said = await lay(desk, "")
    assert "The last prompt, by itself." in said
    assert ">a</b>" in said


async def test_nothing_is_computed_while_it_is_closed(desk: Desk) -> None:
    own = SideBySideHandlers(desk.pool.registry, None)  # type: ignore[arg-type]
    assert await own.follow(False, desk.shown, "x", *desk.states[:1], "a", desk.states[1], "b") == gr.skip()
    assert await own.close() == [False, ""]


async def test_panels_that_are_not_shown_are_left_out_and_a_model_comes_once(desk: Desk) -> None:
    desk.shown = [True, False]
    assert len(re.findall("<h3>", await lay(desk, "x"))) == 1
    desk.shown, desk.models = [True, True], ["a", "a"]
    said = await lay(desk, "x")
    assert len(re.findall("<h3>", said)) == 1
    assert "show a panel with another model" in said


async def test_models_with_one_tokenizer_share_a_column(desk: Desk) -> None:
    assert re.findall("<h3>(.*?)</h3>", await lay(desk, "x")) == ["A, B"]


def test_tokenizers_that_differ_on_the_probe_or_on_the_text_stay_apart() -> None:
    same, other = tokens(1), tokens(2)
    one, two = Column("one", same), Column("two", same)
    assert [column.name for column in merged([(one, same), (two, same)])] == ["one, two"]
    assert len(merged([(one, same), (two, other)])) == 2
    assert len(merged([(one, same), (Column("two", other), same)])) == 2
    assert len(merged([(Column("one", None, "x"), None), (Column("two", None, "x"), None)])) == 2


async def test_half_a_character_and_a_missing_tokenizer_are_sentences(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "half a character" in await lay(desk, "x\ud800")
    monkeypatch.setattr(side_by_side, "PATIENCE_S", 0.01)

    class Slow:
        async def encoder(self, model_id: str) -> Any:
            if model_id == "b":
                await asyncio.sleep(5)
            return await desk.pool.encoder(model_id)

    said = await lay(desk, "x", SideBySideHandlers(desk.pool.registry, Slow()))  # type: ignore[arg-type]
    assert "still being loaded" in said
    assert ">x</b>" in said


def test_every_line_stands_in_a_row_with_its_own_counts() -> None:
    columns = columns_of(TEXT)
    shown = table("What is typed, by itself.", columns)
    assert read(shown).tags.count("i") == 4
    boxes = re.findall(r"<b(?: class=\w)?(?: data-c=(\d+))? data-i=\"([\d ]+)\">(.*?)</b>", shown)
    assert all(len(ids.split()) == int(count or 1) for count, ids, _ in boxes)
    assert sum(len(ids.split()) for _, ids, _ in boxes) == sum(len(column.tokens.token_ids) for column in columns)  # type: ignore[union-attr]
    assert [part for _, _, part in boxes].count("👨‍👩‍👧‍👦") == 2
    rows = re.findall(r'aria-label="Line (\d), (.*?): (\d+) tokens?"', shown)
    for column in columns:
        assert sum(int(count) for _, name, count in rows if name == column.name) == column.tokens.counts.tokens  # type: ignore[union-attr]


def test_markup_in_the_text_is_text() -> None:
    assert "script" not in read(table("", columns_of("<script>alert(1)</script>"))).tags


def test_a_boxs_tokens_have_their_names_beside_them() -> None:
    shown = table("", columns_of("뷁"))
    assert "<0xEB>\n" in "".join(read_names(shown))


def read_names(markup: str) -> list[str]:
    return [found.replace("&lt;", "<").replace("&gt;", ">") for found in re.findall('data-names="(.*?)"', markup, re.S)]


def test_a_long_text_is_laid_out_in_part_and_counted_whole() -> None:
    shown = table("", columns_of("한국어 " * MOST_LAID))
    assert f"The first {MOST_LAID:,} of {4 * MOST_LAID:,} characters" in shown
    assert len(re.findall("<b", shown)) < 3 * MOST_LAID
    assert f"{4 * MOST_LAID:,} characters" in shown


@pytest.mark.parametrize(
    ("counted", "says"),
    [
        ({"A": 3, "B": 12}, "A needs the fewest tokens, 3; B needs 12, 4.00 times as many."),
        ({"A": 3, "B": 2, "C": 2}, "B and C need the fewest tokens, 2; A needs 3, 1.50 times as many."),
        ({"A": 1, "B": 1}, "All need the same: 1 token."),
        ({"A": 0, "B": 2}, "A needs the fewest tokens, 0; B needs 2."),
        ({"A": 7}, "There is one tokenizer here"),
    ],
)
def test_the_model_with_fewer_tokens_is_computed(counted: dict[str, int], says: str) -> None:
    assert verdict([(name, tokens(count)) for name, count in counted.items()]).startswith(says)

"""What a panel says about its adapter: facts in words, and no text that opens a tag."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import checked_adapter
from hypothesis import given
from hypothesis import strategies as st
from markup import read

from playground.ui import adapter_view
from playground.ui.adapter_state import PanelAdapter

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_one_line_says_what_is_in_use() -> None:
    checked = checked_adapter("a", "formal")
    markup = adapter_view.about(checked, "Says <sir>.")
    assert read(markup).text == f"r 82 layers1.2 MBrevision {checked.facts.digest[:8]}Says <sir>."
    assert f'title="{checked.revision}"' in markup


def test_a_single_layer_is_no_layers() -> None:
    checked = checked_adapter("a", "formal")
    one = replace(checked, facts=replace(checked.facts, target_modules=("x",)))
    assert "1 layer<" in adapter_view.about(one, "")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [({}, "r 8"), ({"blocks.0.attn.Wqkv": 4}, "r 4 to 8"), ({f"blocks.{n}.attn.Wqkv": 4 for n in (0, 1)}, "r 4")],
)
def test_ranks_in_words(pattern: dict[str, int], words: str) -> None:
    assert adapter_view.ranks(replace(checked_adapter("a", "x").facts, rank_pattern=pattern)) == words


def test_each_warning_has_a_box_of_its_own() -> None:
    markup = adapter_view.about(checked_adapter("a", "x", warnings=["One.", "Two."]), "")
    assert markup.count('role="status"') == 2


def test_meanwhile_and_after_a_refusal_it_says_where_prompts_go() -> None:
    formal = PanelAdapter().accept("o/n", checked_adapter("a", "o/n", "0123456789abcdef"))
    assert "prompts go to the plain model" in read(adapter_view.inspecting("x/y", PanelAdapter())).text
    assert "prompts go to o/n@01234567" in read(adapter_view.inspecting("x/y", formal)).text
    assert "Prompts go to o/n@01234567, as before." in read(adapter_view.refusal("No.", formal)).text
    assert 'role="alert"' in adapter_view.refusal("No.", formal)


@given(TEXT)
def test_no_text_of_an_adapter_opens_a_tag(text: str) -> None:
    checked = checked_adapter("a", "x", text, [text])
    now = PanelAdapter().accept(text, replace(checked, id=text))
    for markup in (
        adapter_view.about(checked, text),
        adapter_view.inspecting(text, now),
        adapter_view.refusal(text, now),
    ):
        assert set(read(markup).tags) <= {"div", "span"}

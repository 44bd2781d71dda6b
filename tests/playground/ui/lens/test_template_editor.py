"""The template editor: whose text is used where, what is said of a fault, what is shown as changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import gradio as gr
import pytest
from desk import Desk
from fake_encoder import TEMPLATE
from hypothesis import given
from hypothesis import strategies as st
from markup import read

from playground.prompting.prompt import TemplateUsed
from playground.prompting.templates import TemplateFault
from playground.ui.lens.template_diff import Row, compare, diff
from playground.ui.lens.template_editor import VIEW, PanelTemplate
from playground.ui.lens.template_view import fault_box, report

MINE = "{{ messages[0].content }}!"
OWN = TemplateUsed("card", "one\ntwo\nthree", "0123456789abcdef")


async def edit(desk: Desk, text: str, index: int = 0) -> str:
    """Type the template into a panel; the report."""
    written, shown = await desk.templates.edit(text, desk.models[index], desk.written[index])
    if written != gr.skip():
        desk.written[index] = written
    return shown


async def test_the_text_is_put_in_only_where_somebody_looks() -> None:
    desk = Desk()
    assert await desk.templates.fill(True, "Prompt", "a", PanelTemplate()) == gr.skip()
    assert await desk.templates.fill(False, VIEW, "a", PanelTemplate()) == gr.skip()
    filled = await desk.templates.fill(True, VIEW, "a", PanelTemplate())
    assert (filled["value"], filled["interactive"]) == (TEMPLATE, True)


async def test_an_edited_template_is_used_for_its_model_alone() -> None:
    desk = Desk()
    said = await edit(desk, MINE)
    assert "used in this panel, in this session only" in said
    await desk.send("hi")
    first, second = (state.last.request.options.template for state in desk.states)  # type: ignore[union-attr]
    assert (first, second) == (MINE, None)
    assert desk.written[0].options_text("b") is None
    assert (await desk.templates.fill(True, VIEW, "a", desk.written[0]))["value"] == MINE
    assert (await desk.templates.fill(True, VIEW, "b", desk.written[0]))["value"] == TEMPLATE


async def test_another_models_text_in_the_field_forgets_nothing() -> None:
    desk = Desk()
    await edit(desk, MINE)
    desk.models[0] = "b"
    await edit(desk, TEMPLATE)  # as `fill` puts it in
    assert desk.written[0] == PanelTemplate("a", MINE)
    desk.models[0] = "a"
    await edit(desk, TEMPLATE.replace("\n", "\r\n"))
    assert desk.written[0] == PanelTemplate()


async def test_a_fault_is_told_with_its_place_and_kept() -> None:
    desk = Desk()
    said = await edit(desk, "ok\n{{ x y }}")
    assert "Line 2, column 6: Expected token" in said
    assert "nothing is sent from this panel" in read(said).text
    fault = desk.written[0].fault
    assert fault is not None
    assert (fault.line, fault.column) == (2, 6)


async def test_a_template_that_the_encoder_refuses_is_said_in_its_panel_and_stays_unsent() -> None:
    desk = Desk()
    desk.written[0] = PanelTemplate("a", "{% broken", TemplateFault(1, 4, "x"))
    await desk.send("hi")
    assert "Your template is broken" in desk.notices[0]
    assert desk.states[0].last is None
    assert desk.states[1].last is not None


async def test_what_is_no_text_is_refused_before_it_is_sent() -> None:
    desk = Desk()
    said = await edit(desk, "x\ud800")
    assert "Line 1, column 2" in said
    await desk.send("hi")
    assert "Template of panel 1" in desk.hint
    assert desk.states[0].last is None
    assert "cannot be sent" in await desk.look("hi")


async def test_the_lens_shows_the_prompt_that_the_template_makes_and_the_report() -> None:
    desk = Desk()
    await edit(desk, MINE)
    assert MINE in read(await desk.look("hi")).text
    said = await desk.look("hi", mode=VIEW)
    assert "used in this panel" in said
    assert '<div class="preview">' not in said


async def test_reset_takes_the_models_own() -> None:
    desk = Desk()
    text, written, said = await desk.templates.reset("a")
    assert (text["value"], written) == (TEMPLATE, PanelTemplate())
    assert "the model's own template" in read(said).text
    assert "template-diff" not in said


async def test_where_editing_is_not_allowed_nothing_changes_and_it_is_said_why() -> None:
    desk = Desk()
    desk.templates = replace(desk.templates, may_edit=False)
    assert await desk.templates.edit(MINE, "a", PanelTemplate()) == [gr.skip(), gr.skip()]
    assert (await desk.templates.fill(True, VIEW, "a", PanelTemplate()))["interactive"] is False
    assert "--edit-templates" in await desk.templates.report("a", PanelTemplate())


async def test_a_tokenizer_that_cannot_be_had_is_a_sentence() -> None:
    desk = Desk()
    assert "error-box" in await desk.templates.report("unheard-of", PanelTemplate())
    filled = await desk.templates.fill(True, VIEW, "unheard-of", PanelTemplate())
    assert filled["interactive"] is False
    assert "value" not in filled
    assert (await desk.templates.edit("x", "unheard-of", PanelTemplate()))[0] == gr.skip()


def test_the_faulty_line_is_shown_with_its_place_marked_whole() -> None:
    shown = fault_box("one\n<b>क्षत्रिय</b> x", TemplateFault(2, 4, "No <such> thing"))
    assert "Line 2, column 4: No &lt;such&gt; thing." in shown
    assert "&lt;b&gt;<mark>क्ष</mark>त्रिय" in shown
    assert "<mark></mark>" in fault_box("one\ntwo", TemplateFault(2, 4, "End"))
    assert "…" in fault_box("x" * 500, TemplateFault(1, 250, "Far"))
    assert "mark" not in fault_box("one", TemplateFault(1, None, "Somewhere"))


def test_a_failed_trial_is_told_and_does_not_forbid() -> None:
    said = read(report(OWN, "one\n2\nthree", None, "Your template fails in line 2.", may_edit=True)).text
    assert "Tried on one short message: Your template fails in line 2." in said
    assert "is used in this panel" in said


def test_a_change_is_told_by_signs_and_marks() -> None:
    shown = diff("one\ntwo three\nfour", "one\ntwo 3 three\nfour")
    assert "<del><i>2</i><b>−</b><span>two three</span></del>" in shown
    assert "<ins><i>2</i><b>+</b><span>two <mark>3 </mark>three</span></ins>" in shown
    assert "<mark>ती</mark>" in diff("त", "ती")
    assert "&lt;script&gt;" in diff("x", "<script>")


def test_far_lines_are_counted_and_not_shown() -> None:
    own = [str(number) for number in range(20)]
    rows = list(compare(own, [*own[:10], "new", *own[10:]]))
    assert [(row.kind, row.number) for row in rows] == [
        ("left out", 8), ("same", 9), ("same", 10), ("new", 11), ("same", 12), ("same", 13), ("left out", 8),
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12), st.lists(st.sampled_from("abd"), max_size=12))
def test_a_comparison_holds_every_line_of_both(own: list[str], text: list[str]) -> None:
    rows = list(compare(own, text))
    assert count(rows, "gone") == len(own)
    assert count(rows, "new") == len(text)
    assert [row.line for row in rows if row.kind == "gone"] == [
        own[row.number - 1] for row in rows if row.kind == "gone"
    ]
    assert [row.number for row in rows if row.kind == "new"] == sorted(row.number for row in rows if row.kind == "new")


def count(rows: Sequence[Row], kind: str) -> int:
    """Lines of one side: those of that kind, and those that both have."""
    same = sum(row.kind == "same" for row in rows) + sum(row.number for row in rows if row.kind == "left out")
    return same + sum(row.kind == kind for row in rows)


@pytest.mark.parametrize("lines", [600, 30_000])
def test_thousands_of_lines_are_compared_as_a_whole(lines: int) -> None:
    rows = list(compare(["x"] * lines, [*["y"] * lines, "z"]))
    assert count(rows, "gone") == lines
    assert count(rows, "new") == lines + 1

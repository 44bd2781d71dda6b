"""Token probabilities on the page, of real answers: to the letter, by mouse and keys, and never another answer's."""

from __future__ import annotations

import pytest
from browser_panel import Panel, Playground
from playwright.sync_api import Locator, Page, expect

KOREAN = "안녕하세요? 당신은 누구인가요?"
HINDI = "नमस्ते! आप कौन हैं?"
BUTTON = "Token probabilities"


@pytest.fixture
def playground(page: Page, app: str) -> Playground:
    return Playground(page, app)


def parts(panel: Panel) -> Locator:
    return panel.root.locator(".odds-text .odd")


def box(panel: Panel) -> Locator:
    return panel.page.get_by_role("dialog", name="What could have come here")


def button(panel: Panel) -> Locator:
    return panel.root.get_by_role("button", name=BUTTON)


def show(panel: Panel) -> None:
    button(panel).click()
    expect(parts(panel).first).to_be_visible()


def ask_greedily(playground: Playground, prompt: str) -> Panel:
    """The panel whose stand-in speaks the prompt's language, once it has answered."""
    playground.page.get_by_role("button", name="Sampling").click()
    playground.page.get_by_label("number input for Temperature").fill("0")
    playground.page.get_by_role("button", name="Sampling").click()
    playground.ask(prompt)
    for index in range(2):
        playground.panel(index).wait("ended by itself")
    return playground.panel(1 if prompt == KOREAN else 0)


@pytest.mark.parametrize("prompt", [KOREAN, HINDI])
def test_the_parts_are_the_answer_and_each_tells_what_else_could_have_come(playground: Playground, prompt: str) -> None:
    panel = playground.panel(0)
    expect(button(panel)).to_be_disabled()
    panel = ask_greedily(playground, prompt)
    show(panel)
    assert panel.root.locator(".odds-text").text_content() == panel.answers.last.text_content() + "</s>"
    parts(panel).nth(3).click()
    rows = box(panel).locator("li")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("came")
    panel.page.keyboard.press("Escape")
    expect(box(panel)).to_be_hidden()
    button(panel).click()
    expect(parts(panel)).to_have_count(0)


def test_it_is_used_without_a_mouse(playground: Playground) -> None:
    panel = ask_greedily(playground, HINDI)
    show(panel)
    parts(panel).first.focus()
    for _ in range(2):
        panel.page.keyboard.press("ArrowRight")
    expect(parts(panel).nth(2)).to_be_focused()
    for key in ("Enter", " "):
        panel.page.keyboard.press(key)
        expect(box(panel)).to_be_visible()
        panel.page.keyboard.press("Escape")
        expect(box(panel)).to_be_hidden()
    expect(parts(panel).nth(2)).to_be_focused()


def test_it_goes_with_its_answer(playground: Playground) -> None:
    panel = ask_greedily(playground, HINDI)
    show(panel)
    playground.ask(KOREAN)
    expect(parts(panel)).to_have_count(0)
    panel.wait("ended by itself")
    show(panel)
    panel.press("Clear")
    expect(parts(panel)).to_have_count(0)
    expect(button(panel)).to_be_disabled()
    other = playground.panel(1)
    show(other)
    other.choose("Krutrim stand-in")
    expect(parts(other)).to_have_count(0)
    expect(button(other)).to_be_disabled()

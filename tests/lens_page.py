"""The prompt lens in the words of its user, for the browser tests."""

from __future__ import annotations

from browser_panel import Panel, Playground
from playwright.sync_api import Locator, expect

SCRIPTS = {
    "Hindi": "नमस्ते! क्षत्रिय ज्ञान कृपया?",
    "Tamil": "வணக்கம், நீங்கள் யார்?",
    "Korean": "안녕하세요? 뷁 당신은 누구인가요?",
    "emoji": "👩‍👩‍👧 and 🇮🇳🇰🇷 ☕️",
}


class Lens:
    """The box "Template preview" of one panel, opened."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.root = panel.root.locator(".preview-box")
        panel.open("Template preview")

    def view(self, name: str) -> Lens:
        self.root.locator(".segments").get_by_text(name, exact=True).click()
        return self

    @property
    def text(self) -> Locator:
        return self.root.locator(".exact")

    @property
    def boxes(self) -> Locator:
        return self.root.locator(".boxes b")

    def labels(self) -> list[str]:
        return [part.get_attribute("data-l") or "" for part in self.root.locator(".exact [data-l]").all()]

    def shows(self, text: str) -> None:
        """To the letter: labels and what is not sent are no text of the page."""
        expect(self.text).to_have_js_property("textContent", text)


def drawer(playground: Playground, name: str) -> None:
    playground.page.locator("#drawers").get_by_role("button", name=name).click()


def longest_answer(playground: Playground, tokens: int) -> None:
    playground.page.get_by_label("Longest answer").fill(str(tokens))
    playground.page.keyboard.press("Tab")

"""The page in the words of its user, for the browser tests."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, TimeoutError, expect

PATIENCE_MS = 60_000


WATCH = """() => {
  window.frames_seen = [];
  const look = () => {
    window.frames_seen.push([0, 1].map(index => {
      const panel = document.querySelector(`#panel-${index}`);
      const texts = [...panel.querySelectorAll('.bot-row .md')].filter(md => !md.querySelector('.foot'));
      return [!!panel.querySelector('.foot.busy'), texts.reduce((sum, md) => sum + md.textContent.length, 0)];
    }));
    requestAnimationFrame(look);
  };
  look();
}"""

BOTH_GREW = """() => {
  const both = window.frames_seen.filter(panels => panels.every(([busy]) => busy));
  return [0, 1].every(index => new Set(both.map(panels => panels[index][1])).size > 3);
}"""

STORY = "Tell me a short story."
"""Greedily, this makes both stand-ins talk for seconds."""

STOP_AT_THE_FIRST_WORD = """() => new Promise(done => {
  const look = () => {
    const texts = [...document.querySelectorAll('#panel-0 .bot-row .md')].filter(md => !md.querySelector('.foot'));
    if (!texts.length) return requestAnimationFrame(look);
    document.querySelector('#panel-0 .stop-panel').click();
    done();
  };
  look();
})"""


class Panel:
    """One panel by its place, counted from 0."""

    def __init__(self, page: Page, index: int) -> None:
        self.root = page.locator(f"#panel-{index}")
        self.page = page

    @property
    def prompts(self) -> Locator:
        return self.root.locator(".user-row .message-content .md")

    @property
    def answers(self) -> Locator:
        """The texts of the answers; a status line is no answer."""
        return self.root.locator(".bot-row .message-content .md").filter(has_not=self.page.locator(".foot"))

    @property
    def foot(self) -> Locator:
        return self.root.locator(".foot").last

    @property
    def errors(self) -> Locator:
        return self.root.locator(".error-box")

    @property
    def is_busy(self) -> bool:
        return self.root.locator(".foot.busy").count() > 0

    def answer(self) -> str:
        """The last answer so far, to the character."""
        return self.answers.last.inner_text() if self.answers.count() else ""

    def press(self, name: str) -> None:
        self.root.get_by_role("button", name=name, exact=True).click()

    def wait(self, words: str = "") -> None:
        """Until the last answer has ended, with these words in its status line."""
        expect(self.root.locator(".foot.busy")).to_have_count(0, timeout=PATIENCE_MS)
        expect(self.foot).to_contain_text(words, timeout=PATIENCE_MS)

    def choose(self, name: str) -> None:
        self.root.locator(".model input").click()
        self.root.get_by_role("option").filter(has_text=name).click()

    @property
    def adapter(self) -> Locator:
        """The adapter menu."""
        return self.root.get_by_label("Adapter of panel", exact=False).first

    def choose_adapter(self, name: str) -> None:
        """A menu that was opened before it heard of the panel's new model is opened again."""
        for patience_ms in (2_000, 5_000, 10_000, PATIENCE_MS):
            self.adapter.click()
            option = self.root.get_by_role("option").filter(has_text=name)
            try:
                return option.click(timeout=patience_ms)
            except TimeoutError:
                self.page.keyboard.press("Escape")
                self.root.locator(".model input").focus()
        raise AssertionError(f"the adapter menu never offered {name}")

    def put_on(self, name: str) -> None:
        """Choose an adapter and wait until it is in use."""
        self.choose_adapter(name)
        expect(self.adapter).to_have_value(name)
        expect(self.root.locator(".block.adapter-about .about-line")).to_be_visible()
        expect(self.root.locator(".inspecting")).to_have_count(0)

    def type_adapter(self, text: str) -> None:
        """Name one that no menu offers."""
        self.choose_adapter("From the Hub or a folder")
        field = self.root.get_by_placeholder("owner/name, owner/name@revision, or a folder")
        field.fill(text)
        field.press("Enter")

    def set_scale(self, scale: str) -> None:
        field = self.root.get_by_label("number input for Adapter scale", exact=False)
        field.fill(scale)
        field.press("Tab")

    def open(self, box: str) -> None:
        self.root.get_by_role("button", name=box).click()

    def preview(self) -> Locator:
        return self.root.locator(".preview .exact")


class Playground:
    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        self.prompt = page.get_by_role("textbox", name="Prompt", exact=True)
        expect(self.prompt).to_be_visible()

    def panel(self, index: int) -> Panel:
        return Panel(self.page, index)

    def type(self, text: str) -> None:
        self.prompt.fill(text)

    def ask(self, text: str) -> None:
        self.type(text)
        self.prompt.press("Enter")

    def ask_greedily(self, text: str) -> None:
        """So that the stand-ins answer as they always do."""
        self.page.get_by_role("button", name="Sampling").click()
        self.page.get_by_label("number input for Temperature").fill("0")
        self.ask(text)

    def stop_left_at_its_first_word(self) -> None:
        self.page.evaluate(STOP_AT_THE_FIRST_WORD)

    def watch(self) -> None:
        """Record, frame by frame, which of the first two panels are answering and how much each has said."""
        self.page.evaluate(WATCH)

    def until_both_grew(self) -> None:
        """Each, since `watch`, while both were answering, more than once and wherever the other had come to."""
        self.page.wait_for_function(BOTH_GREW, timeout=PATIENCE_MS)

    def press(self, name: str) -> None:
        self.page.locator("#prompt-bar").get_by_role("button", name=name, exact=True).click()

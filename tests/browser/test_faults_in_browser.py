"""The page on scripted engines: what real ones rarely do, and what needs them to be slow at the right moment."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from browser_panel import Playground
from fakes import FakePool
from playwright.sync_api import Page, expect
from scripted_site import HOSTILE, KOREAN, until
from serving import free_port, run_server

FREED_S = 30
"""Far beyond what a loaded machine takes; "hangs" never ends by itself, so only being freed lets a test pass."""


def test_both_panels_stream_at_the_same_time(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.ask("안녕하세요")
    expect(left.prompts).to_have_text("안녕하세요")
    seen: list[tuple[int, int]] = []

    def grew() -> bool:
        if left.is_busy and right.is_busy:
            seen.append((len(left.answer()), len(right.answer())))
        steps = list(pairwise(seen))
        return sum(a < b for (a, _), (b, _) in steps) > 1 and sum(a < b for (_, a), (_, b) in steps) > 1

    until(grew, playground.page)
    left.wait("ended by itself")
    right.wait("ended by itself")
    assert left.answer() == "".join(KOREAN)


def test_stop_on_one_panel_leaves_the_other_alone(playground: Playground, pool: FakePool) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.ask("go")
    until(lambda: left.answer() and right.answer(), playground.page)
    left.press("Stop")
    left.wait("stopped")
    said = left.answer()
    assert right.is_busy
    assert not pool.running["slow"]
    right.wait("ended by itself")
    assert right.answer() == "शब्द " * 60
    assert left.answer() == said
    assert said
    assert "".join(KOREAN).startswith(said)


def test_stop_all_and_clear_all(playground: Playground, pool: FakePool) -> None:
    playground.panel(1).choose("HANGS")
    playground.ask("go")
    panels = [playground.panel(index) for index in range(2)]
    until(lambda: all(panel.answer() for panel in panels), playground.page)
    playground.press("Stop all")
    for panel in panels:
        panel.wait("stopped")
    assert not pool.running["slow"] + pool.running["hangs"]
    playground.ask("again")
    until(lambda: all(panel.answers.count() == 2 for panel in panels), playground.page)
    playground.press("Clear all")
    for panel in panels:
        expect(panel.prompts).to_have_count(0)
    until(lambda: not pool.running["slow"] + pool.running["hangs"], playground.page)


def test_an_error_stays_in_its_panel_and_the_prompt_can_be_asked_again(playground: Playground, pool: FakePool) -> None:
    left, right = playground.panel(0), playground.panel(1)
    left.choose("QUICK")
    right.choose("BROKEN")
    playground.ask("hello")
    left.wait("ended by itself")
    expect(right.errors).to_contain_text("The GPU is full: <b>choose</b> a smaller model.")
    expect(left.errors).to_have_count(0)
    expect(right.prompts).to_have_text("hello")
    right.choose("QUICK")
    right.press("Regenerate")
    right.wait("ended by itself")
    expect(right.errors).to_have_count(0)
    assert right.answer() == left.answer() == "Hello, world."
    assert [message.content for message in pool.requests[-1].messages][-1] == "hello"


def test_an_unexpected_error_keeps_what_was_said_and_tells_no_secrets(playground: Playground) -> None:
    left = playground.panel(0)
    left.choose("MIDWAY")
    playground.ask("hello")
    expect(left.errors).to_contain_text("Unexpected error while answering: the log has the details.")
    assert left.answer() == "so far "
    assert "secret" not in playground.page.content()


def test_every_text_is_shown_to_the_character_and_nothing_is_fetched_or_run(playground: Playground) -> None:
    left = playground.panel(0)
    left.choose("HOSTILE")
    left.open("Template preview")
    playground.page.on("dialog", lambda _: pytest.fail("a script of the model ran"))
    playground.ask(HOSTILE)
    left.wait("ended by itself")
    assert left.answer() == HOSTILE
    assert left.prompts.last.inner_text() == HOSTILE
    asked = f"<|system|>System of hostile.\n<|user|>{HOSTILE}\n<|assistant|>"
    expect(left.preview()).to_have_js_property("innerText", asked)
    rendered = "#panel-0 :is(.message-row, .preview) :is(img, script, style, a, b, code, .katex)"
    assert playground.page.locator(rendered).count() == 0


def test_copy_copies_the_exact_text(playground: Playground) -> None:
    playground.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    left = playground.panel(0)
    left.choose("HOSTILE")
    playground.ask("x")
    left.wait("ended by itself")
    left.press("Copy")
    left.root.get_by_role("button", name="Copied").wait_for()
    assert playground.page.evaluate("navigator.clipboard.readText()") == HOSTILE


@pytest.mark.parametrize("nothing", ["", "   ", "\n \n"])
def test_an_empty_prompt_does_nothing(playground: Playground, pool: FakePool, nothing: str) -> None:
    playground.ask(nothing)
    playground.press("Send")
    playground.page.wait_for_timeout(400)
    assert playground.panel(0).prompts.count() == 0
    assert not pool.requests


def test_a_prompt_too_long_for_one_panel_goes_to_the_other(playground: Playground, pool: FakePool) -> None:
    left, right = playground.panel(0), playground.panel(1)
    left.choose("QUICK")
    right.choose("QUICK")
    right.open("System prompt")
    right.root.get_by_label("System prompt").fill("s" * 900)
    playground.ask("p" * 200)
    left.wait("ended by itself")
    expect(right.errors).to_contain_text("tokens too long")
    assert right.prompts.count() == 0
    assert len(pool.requests) == 1
    playground.ask("p" * 1200)
    expect(left.errors).to_contain_text("tokens too long")
    expect(playground.prompt).to_have_value("p" * 1200)
    assert len(pool.requests) == 1


def test_enter_that_ends_a_syllable_does_not_send(playground: Playground, pool: FakePool) -> None:
    playground.type("안녕")
    playground.prompt.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    playground.prompt.dispatch_event("keypress", {"key": "Enter", "isComposing": True, "bubbles": True})
    playground.page.wait_for_timeout(300)
    assert not pool.requests
    playground.prompt.dispatch_event("keydown", {"key": "Enter", "bubbles": True})
    playground.prompt.dispatch_event("keypress", {"key": "Enter", "bubbles": True})
    until(lambda: pool.requests, playground.page)


def test_closing_the_tab_frees_the_engine(playground: Playground, pool: FakePool) -> None:
    for index in range(2):
        playground.panel(index).choose("HANGS")
    playground.ask("go")
    until(lambda: all(playground.panel(index).answer() for index in range(2)), playground.page)
    assert pool.running["hangs"] == 2
    playground.page.close()
    deadline = time.monotonic() + FREED_S
    while pool.running["hangs"]:
        assert time.monotonic() < deadline, "an engine still speaks to nobody"
        time.sleep(0.05)


def test_loading_shows_its_progress_in_the_place_of_the_answer(playground: Playground) -> None:
    left = playground.panel(0)
    left.choose("LOADS")
    playground.ask("go")
    expect(left.foot).to_contain_text("Downloading · 1.0 of 4.0 GB")
    expect(left.foot).to_contain_text(re.compile(r"4\.0 GB · [1-9]\d* s$"))
    left.press("Stop")
    left.wait("stopped before the first word")


@contextmanager
def scripted_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """A server of its own, that ends without a goodbye."""
    process = run_server(port, "tests/scripted_site.py", str(port), "hangs", "quick")
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_server_that_is_gone_is_told_in_each_panel_that_was_answering(page: Page) -> None:
    port = free_port()
    with scripted_server(port):
        playground = Playground(page, f"http://127.0.0.1:{port}/")
        answering, done = playground.panel(0), playground.panel(1)
        playground.ask("go")
        done.wait("ended by itself")
        until(answering.answer, page)
        page.wait_for_timeout(3000)
        expect(answering.errors).to_have_count(0)
    expect(answering.errors).to_contain_text("The server is gone: start it again, then reload this page")
    expect(answering.foot).to_be_hidden()
    assert answering.answer() == "one "
    assert done.answer() == "Hello, world."
    expect(done.errors).to_have_count(0)
    with scripted_server(port):
        expect(page.locator(".message-row")).to_have_count(0)
        expect(answering.errors).to_have_count(0)
        playground.ask("go")
        done.wait("ended by itself")


def test_half_a_character_in_the_prompt_is_told_and_the_next_prompt_answered(
    playground: Playground, pool: FakePool
) -> None:
    left = playground.panel(0)
    left.choose("QUICK")
    playground.panel(1).choose("QUICK")
    left.open("Template preview")
    playground.prompt.evaluate(
        "box => { box.value = 'half \\ud83d'; box.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    expect(left.errors).to_contain_text("half a character")
    playground.prompt.press("Enter")
    hint = playground.page.locator("#hint")
    expect(hint).to_contain_text("Prompt: the text contains half a character (a lone surrogate, U+D83D at place 6)")
    assert not pool.requests
    playground.ask("whole")
    left.wait("ended by itself")
    assert left.answer() == "Hello, world."
    expect(hint).not_to_be_visible()

"""`python app.py --zero-gpu rehearse` in a browser: the page of a Space with ZeroGPU, its grants on this CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser_panel import STORY, Playground
from playwright.sync_api import Page, expect
from serving import free_port, run_app, stop_app

HANGUL = re.compile("[가-힣]")
DEVANAGARI = re.compile("[\u0900-\u097f]")


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    port = free_port()
    process = run_app(port, "--zero-gpu", "rehearse", "--models", "demo-krutrim,demo-kullm3")
    yield f"http://127.0.0.1:{port}/"
    stop_app(process)
    assert process.returncode == 0


@pytest.fixture
def playground(page: Page, space: str) -> Playground:
    return Playground(page, space)


def test_korean_and_hindi_in_both_panels_and_again(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.ask_greedily("नमस्ते")
    left.wait("ended by itself")
    right.wait()
    assert DEVANAGARI.search(left.answer())
    playground.ask("안녕하세요")
    expect(right.prompts).to_have_count(2)
    left.wait()
    right.wait("ended by itself")
    assert HANGUL.search(right.answer())
    expect(left.errors).to_have_count(0)
    expect(right.errors).to_have_count(0)
    right.press("Regenerate")
    right.wait("ended by itself")
    assert HANGUL.search(right.answer())
    expect(right.answers).to_have_count(2)


def test_stop_on_one_panel_leaves_the_other_alone(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.watch()
    playground.ask_greedily(STORY)
    playground.stop_left_at_its_first_word()
    left.wait("stopped")
    said = left.answer()
    right.wait("ended by itself")
    assert len(right.answer()) > len(said) > 0
    assert left.answer() == said


def test_both_stream_at_the_same_time(playground: Playground) -> None:
    playground.watch()
    playground.ask_greedily(STORY)
    playground.until_both_grew()
    playground.press("Stop all")


def test_models_that_are_not_there_say_so(playground: Playground) -> None:
    left = playground.panel(0)
    left.choose("KULLM3 · not on this Space")
    playground.ask("hello")
    expect(left.errors).to_contain_text("KULLM3 is not on this Space: choose Krutrim stand-in or KULLM3 stand-in.")
    playground.panel(1).wait("ended by itself")

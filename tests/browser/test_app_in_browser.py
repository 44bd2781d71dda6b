"""`python app.py` as a user starts it, with both stand-ins on their real engines, in a real browser."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from browser_panel import STORY, Playground
from gradio_client import Client
from playwright.sync_api import Page, expect
from serving import free_port, run_app

KOREAN = "안녕하세요? 당신은 누구인가요?"
HINDI = "नमस्ते! आप कौन हैं?"

KULLM3_ASKED = json.loads((Path(__file__).parents[1] / "goldens" / "templates.json").read_text("utf-8"))["cases"][
    "kullm3"
]["korean"]["text"]


@pytest.fixture
def playground(page: Page, app: str) -> Playground:
    return Playground(page, app)


@pytest.mark.parametrize("prompt", [KOREAN, HINDI])
def test_both_models_answer_one_prompt_and_end_by_themselves(playground: Playground, prompt: str) -> None:
    playground.ask(prompt)
    for index in range(2):
        panel = playground.panel(index)
        expect(panel.prompts).to_have_text(prompt)
        panel.wait("ended by itself")
        assert panel.answer().strip()
        assert "\ufffd" not in panel.answer()
        for fact in ("first token", "tokens/s", "characters/s", "tokens"):
            expect(panel.foot).to_contain_text(fact)
        expect(panel.errors).to_have_count(0)


def test_both_models_stream_at_the_same_time(playground: Playground) -> None:
    """Each is seen to grow while both are answering, more than once and wherever the other has come to."""
    playground.watch()
    playground.ask_greedily(STORY)
    playground.until_both_grew()
    playground.press("Stop all")


def test_stop_on_one_model_leaves_the_other_alone(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.ask_greedily(STORY)
    playground.stop_left_at_its_first_word()
    left.wait("stopped")
    right.wait()
    assert "stopped" not in right.foot.inner_text()
    assert left.answer()


def test_regenerate_asks_one_model_again(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    playground.ask(HINDI)
    left.wait("ended by itself")
    right.wait("ended by itself")
    before, other = left.foot.inner_text(), right.foot.inner_text()
    left.press("Regenerate")
    expect(left.foot).not_to_have_text(before)
    left.wait("ended by itself")
    assert left.answers.count() == right.answers.count() == 1
    assert right.foot.inner_text() == other


def test_the_preview_is_the_rendered_template_to_the_character(playground: Playground) -> None:
    for index in range(2):
        playground.panel(index).open("Template preview")
        expect(playground.panel(index).root.locator(".preview")).to_be_visible()
    playground.type("고려대학교에 대해서 알고 있니?")
    rendered = ("<|USER|> 고려대학교에 대해서 알고 있니?\n<|RESPONSE|>\n", KULLM3_ASKED)
    for index, text in enumerate(rendered):
        expect(playground.panel(index).preview()).to_have_js_property("innerText", text)


def test_the_preview_holds_the_conversation_and_every_sign_that_is_typed(
    playground: Playground, client: Client
) -> None:
    playground.ask(KOREAN)
    for index in range(2):
        playground.panel(index).wait("ended by itself")
        playground.panel(index).open("Template preview")
    typed = "  और <b>क्या</b>?\n\t둘째 줄  "
    playground.type(typed)
    said = playground.panel(0).answer()
    text = f"<|USER|> {KOREAN}\n<|RESPONSE|>\n{said}</s>\n<|USER|> {typed}\n<|RESPONSE|>\n"
    expect(playground.panel(0).preview()).to_have_js_property("innerText", text)
    expect(playground.panel(1).preview()).to_contain_text("둘째 줄")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": KOREAN},
        {"role": "assistant", "content": said},
        {"role": "user", "content": typed},
    ]
    count = len(client.predict("demo-krutrim", messages, api_name="/render_prompt")["token_ids"])
    expect(playground.panel(0).root.locator(".preview .tokens")).to_have_text(f"{count:,} of 1,024 tokens")


def test_a_prompt_longer_than_the_context_says_by_how_much(playground: Playground) -> None:
    prompt = "This is far too long. " * 2000
    playground.ask(prompt)
    for index in range(2):
        expect(playground.panel(index).errors).to_contain_text("tokens too long")
        assert playground.panel(index).prompts.count() == 0
    expect(playground.prompt).to_have_value(prompt)


def test_the_example_prompts_fill_the_prompt(playground: Playground) -> None:
    chips = playground.page.locator("#examples button")
    assert chips.count() >= 5
    for index in range(chips.count()):
        chips.nth(index).click()
        expect(playground.prompt).not_to_have_value("")
        playground.type("")


def test_the_stand_ins_are_called_so(playground: Playground) -> None:
    expect(playground.page.locator("#banner")).to_contain_text("stand-ins")
    expect(playground.page.locator("#banner code")).to_have_text("python app.py --models krutrim-1-instruct,kullm3")
    for index in range(2):
        expect(playground.panel(index).root.locator(".badge")).to_contain_text("stand-in")
    expect(playground.panel(0).root.locator(".model input")).to_have_value("Krutrim stand-in · ready", timeout=60_000)


def test_nothing_of_the_session_is_left_in_the_browser(playground: Playground) -> None:
    playground.ask(KOREAN)
    playground.panel(0).wait("ended by itself")
    stored = playground.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    assert KOREAN not in stored


def test_the_api_streams_the_same_answer_for_the_same_seed(client: Client) -> None:
    messages = [{"role": "user", "content": HINDI}]
    sampling = {"temperature": 1, "seed": 5, "max_new_tokens": 40}
    texts = []
    for _ in range(2):
        *_, last = client.submit("demo-krutrim", messages, sampling, None, api_name="/generate")
        assert last["finish_reason"] in ("stop", "length")
        texts.append(last["text"])
    assert texts[0] == texts[1]
    assert texts[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_an_answer_ends_the_process(page: Page, number: signal.Signals) -> None:
    port = free_port()
    process = run_app(port, "--models", "demo-krutrim,demo-kullm3")
    playground = Playground(page, f"http://127.0.0.1:{port}/")
    playground.ask_greedily(STORY)
    expect(playground.panel(0).answers).not_to_have_count(0, timeout=60_000)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, f"it did not end by itself before `serve.END_S`:\n{output}"
    assert "Traceback" not in output

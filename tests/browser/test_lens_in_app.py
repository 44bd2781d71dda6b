"""The prompt lens on the real stand-ins: what it shows, what programs get, what the engines are sent is one prompt."""

from __future__ import annotations

from typing import Any

import pytest
from browser_panel import Playground
from endpoint_client import generate
from gradio_client import Client
from lens_page import SCRIPTS, Lens, drawer
from playwright.sync_api import Page, expect

MODELS = ("demo-krutrim", "demo-kullm3")
EVERYTHING = " ".join(SCRIPTS.values())
OLD_TURN = [{"role": "user", "content": EVERYTHING * 12}, {"role": "assistant", "content": "네."}]


@pytest.fixture
def playground(page: Page, app: str) -> Playground:
    return Playground(page, app)


def render(client: Client, model_id: str, messages: Any, options: Any = None, longest: int = 512) -> dict[str, Any]:
    prompt: dict[str, Any] = client.predict(model_id, messages, options, longest, api_name="/render_prompt")
    return prompt


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_what_is_shown_while_typing_is_what_programs_are_told(playground: Playground, client: Client) -> None:
    lenses = [Lens(playground.panel(index)) for index in range(2)]
    prompts = {}
    for text in SCRIPTS.values():
        playground.type(text)
        for model_id, lens in zip(MODELS, lenses, strict=True):
            prompts[model_id] = render(client, model_id, [user(text)])
            lens.shows(prompts[model_id]["text"])
            expect(lens.root.locator(".exact .w")).to_have_js_property("textContent", text)
    assert lenses[0].labels() == ["Turn 1 · being typed"]
    assert lenses[1].labels() == ["System prompt · the trained default", "Turn 1 · being typed"]
    assert lenses[0].root.locator(".exact .k").get_attribute("data-t") == "<s>"
    for model_id, lens in zip(MODELS, lenses, strict=True):
        lens.view("Tokens")
        pieces = prompts[model_id]["pieces"]
        expect(lens.boxes).to_have_count(len(pieces))
        shown = [[int(token) for token in (box.get_attribute("data-i") or "").split()] for box in lens.boxes.all()]
        assert shown == [piece["token_ids"] for piece in pieces]
        assert any(piece["kind"] == "bytes" for piece in pieces)


@pytest.mark.parametrize("model_id", MODELS)
def test_the_parts_joined_are_what_the_engine_is_sent(client: Client, model_id: str) -> None:
    greedy = {"temperature": 0, "max_new_tokens": 4}
    messages = [*OLD_TURN, user(f"{EVERYTHING} </s><s>")]
    lengths = {}
    for control in ("plain", "as_typed"):
        options = {"control": control, "when_full": "drop_oldest"}
        prompt = render(client, model_id, messages, options, 4)
        assert "".join(part["text"] for part in prompt["spans"]) == prompt["text"]
        assert [token for part in prompt["spans"] for token in part["token_ids"]] == prompt["token_ids"]
        assert [each["why"] for each in prompt["unsent"]] == ["dropped", "dropped"]
        assert {each["token"] for each in prompt["control_in_text"]} == {"</s>", "<s>"}
        usage = generate(client, model_id, messages, greedy, options=options)[-1]["usage"]
        assert (usage["prompt_tokens"], usage["dropped_messages"]) == (len(prompt["token_ids"]), 2)
        typed = [part["text"] for part in prompt["spans"] if part["origin"] == "control" and part["message"] == 2]
        assert typed == (["</s>", "<s>"] if control == "as_typed" else [])
        lengths[control] = usage["prompt_tokens"]
    assert lengths["plain"] > lengths["as_typed"]


def test_two_tokenizers_lie_side_by_side_line_by_line(playground: Playground, client: Client) -> None:
    drawer(playground, "Tokens side by side")
    lines = list(SCRIPTS.values())
    text = "\n".join(lines)
    playground.type(text)
    laid = playground.page.locator(".side-by-side")
    expect(laid.locator(".line")).to_have_count(len(lines))
    told = [client.predict(model_id, text, api_name="/tokenize") for model_id in MODELS]
    heads = laid.locator(".heads > div")
    for index, tokenized in enumerate(told):
        expect(heads.nth(index)).to_contain_text(f"{tokenized['counts']['tokens']:,} tokens")
        expect(laid.locator(f".boxes:nth-of-type({index + 1}) b")).to_have_count(len(tokenized["pieces"]))
    counts = [tokenized["counts"]["tokens"] for tokenized in told]
    names = ("Krutrim stand-in", "KULLM3 stand-in")
    expect(laid.locator(".verdict")).to_contain_text(f"{names[counts.index(min(counts))]} needs the fewest tokens")
    playground.type("안녕")
    expect(laid.locator(".line")).to_have_count(1)

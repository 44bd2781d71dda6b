"""The prompt lens on scripted engines: parts, their names, tokens, control tokens, a full context, an own template."""

from __future__ import annotations

import pytest
from browser_panel import Playground
from fake_encoder import BROKEN_TEMPLATE, TEMPLATE, FakeEncoder
from fakes import FakePool
from lens_page import SCRIPTS, Lens, drawer, longest_answer
from playwright.sync_api import Page, expect
from scripted_site import until

from playground.types import Message

SYSTEM = Message(role="system", content="System of quick.")


@pytest.fixture
def quick(playground: Playground) -> Playground:
    """With the model that answers at once in the first panel, and no other panel."""
    playground.panel(1).press("Remove")
    playground.panel(0).choose("QUICK")
    return playground


def test_every_script_is_shown_to_the_letter_part_by_part_and_token_by_token(quick: Playground, pool: FakePool) -> None:
    lens, encoder = Lens(quick.panel(0)), FakeEncoder(pool.registry.get("quick"))
    for text in SCRIPTS.values():
        quick.type(text)
        lens.shows(f"<|system|>{SYSTEM.content}\n<|user|>{text}\n<|assistant|>")
        assert lens.labels() == ["System prompt · the trained default", "Turn 1 · being typed"]
        expect(lens.root.locator(".exact .w")).to_have_js_property("textContent", text)
    lens.view("Tokens")
    for text in SCRIPTS.values():
        quick.type(text)
        pieces = encoder.pieces(encoder.preview([SYSTEM, Message(role="user", content=text)]))
        expect(lens.boxes).to_have_count(len(pieces))
        counts = [box.get_attribute("data-c") or "1" for box in lens.boxes.all()]
        assert counts == [str(piece.end_token - piece.first_token) for piece in pieces]
    quick.ask("What am I?")
    quick.panel(0).wait("ended by itself")
    lens.view("Prompt").shows(f"<|system|>{SYSTEM.content}\n<|user|>What am I?\n<|assistant|>")
    quick.type("और?")
    labels = ["System prompt · the trained default", "Turn 1 · user", "Turn 1 · assistant", "Turn 2 · being typed"]
    expect(lens.root.locator(".exact .w")).to_have_text("और?")
    assert lens.labels() == labels


def test_a_control_token_is_plain_text_unless_it_is_chosen(quick: Playground, pool: FakePool) -> None:
    caution = quick.page.locator(".caution")
    quick.type("</s> is how it ends")
    expect(caution).to_contain_text("</s> is a control token of QUICK. It is sent as plain text.")
    lens = Lens(quick.panel(0))
    lens.shows(f"<|system|>{SYSTEM.content}\n<|user|></s> is how it ends\n<|assistant|>")
    expect(lens.root.locator(".exact .c")).to_have_text(["<|system|>", "<|user|>", "<|assistant|>"])
    drawer(quick, "Prompting")
    quick.page.locator("#control-text").get_by_label("As typed").check()
    expect(caution).to_contain_text("It is sent as such.")
    expect(lens.root.locator(".exact .c")).to_have_text(["<|system|>", "<|user|>", "</s>", "<|assistant|>"])
    quick.prompt.press("Enter")
    until(lambda: pool.requests, quick.page)
    assert pool.requests[-1].options.control == "as_typed"
    expect(caution).to_have_count(0)


def test_a_full_context_refuses_or_leaves_out_the_oldest_turn_and_says_so(quick: Playground, pool: FakePool) -> None:
    panel = quick.panel(0)
    lens = Lens(panel)
    drawer(quick, "Sampling")
    longest_answer(quick, 100)
    quick.ask("x" * 600)
    panel.wait("ended by itself")
    quick.type("y" * 500)
    expect(lens.root).to_contain_text("Sending this would be refused: it is 139 tokens too long for QUICK.")
    expect(lens.root.locator(".budget.over")).to_be_visible()
    quick.prompt.press("Enter")
    expect(panel.root.locator(".notice .error-box")).to_contain_text("139 tokens too long")
    drawer(quick, "Prompting")
    quick.page.locator("#when-full").get_by_label("Leave out the oldest turns").check()
    expect(lens.root.locator(".budget .facts")).to_contain_text("521 of 1,000 tokenswithout turn 1")
    assert [label for label in lens.labels() if "left out" in label] == [
        "Turn 1 · user · left out, the context is full",
        "Turn 1 · assistant · left out, the context is full",
    ]
    lens.shows(f"<|system|>{SYSTEM.content}\n<|user|>{'y' * 500}\n<|assistant|>")
    expect(panel.root.locator(".unsent")).to_have_count(0)
    quick.prompt.press("Enter")
    until(lambda: len(pool.requests) == 2, quick.page)
    panel.wait("ended by itself")
    expect(panel.root.locator(".unsent")).to_have_text("not sent any more: the context was full")
    assert pool.requests[-1].options.when_full == "drop_oldest"


def test_a_template_of_ones_own_is_used_in_its_panel_until_it_is_reset(quick: Playground, pool: FakePool) -> None:
    lens = Lens(quick.panel(0)).view("Template")
    editor = lens.root.get_by_label("Chat template of panel 1")
    expect(editor).to_have_value(TEMPLATE)
    editor.fill(f"line one\n  {BROKEN_TEMPLATE}")
    fault = lens.root.locator(".template-fault")
    expect(fault).to_contain_text("Line 2, column 6")
    expect(fault.locator("code")).to_contain_text(BROKEN_TEMPLATE)
    editor.fill("Mine: ")
    expect(fault).to_have_count(0)
    expect(lens.root.locator(".template-diff ins")).to_contain_text("Mine: ")
    quick.type("hi")
    lens.view("Prompt").shows(f"Mine: <|system|>{SYSTEM.content}\n<|user|>hi\n<|assistant|>")
    expect(lens.root.locator(".source")).to_contain_text("yours, for this session")
    quick.prompt.press("Enter")
    until(lambda: pool.requests, quick.page)
    assert pool.requests[-1].options.template == "Mine: "
    quick.panel(0).wait("ended by itself")
    lens.view("Template")
    lens.root.get_by_role("button", name="Reset to the model's own").click()
    expect(editor).to_have_value(TEMPLATE)
    quick.type("hi")
    lens.view("Prompt")
    expect(lens.root.locator(".source")).to_contain_text("the model card")


PARTS = (".exact .s", ".exact .u", ".exact .a", ".exact .w", ".exact .t", ".exact .c", ".caution", ".key .w", ".title")
BOXES = (".boxes .s b", ".boxes .w b", ".boxes .t b", ".boxes b.c", ".counts")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_is_readable(page: Page, site: str, pool: FakePool, theme: str) -> None:
    playground = Playground(page, f"{site}?__theme={theme}")
    playground.panel(0).choose("QUICK")
    playground.ask("first")
    playground.panel(0).wait("ended by itself")
    playground.type("안녕 </s> नमस्ते")
    lens = Lens(playground.panel(0))
    expect(lens.root.locator(".exact .w")).to_be_visible()
    faint = {part: page.evaluate(CONTRAST, part) for part in PARTS}
    lens.view("Tokens")
    expect(lens.boxes.first).to_be_visible()
    faint |= {part: page.evaluate(CONTRAST, part) for part in BOXES}
    assert {part: ratio for part, ratio in faint.items() if ratio < 4.5} == {}


def test_a_phone_shows_all_views_without_scrolling_sideways(playground: Playground) -> None:
    page = playground.page
    page.set_viewport_size({"width": 390, "height": 844})
    playground.panel(0).choose("QUICK")
    drawer(playground, "Prompting")
    drawer(playground, "Tokens side by side")
    playground.type("안녕하세요 </s> " + "நமஸ்காரம்" * 30 + "👩‍👩‍👧")
    lens = Lens(playground.panel(0))
    for view, there in (("Prompt", ".exact .w"), ("Tokens", ".boxes b"), ("Template", ".template-report")):
        lens.view(view)
        expect(lens.root.locator(there).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        wide = page.evaluate(WIDE)
        assert wide == [], view


SHOWN = ".preview, .boxes b, .side-by-side, .caution, .template-report, .segments, textarea"
WIDE = f"""[...document.querySelectorAll('{SHOWN}')]
  .filter(e => e.checkVisibility()).map(e => [e.className, e.getBoundingClientRect().right])
  .filter(([_, right]) => right > 390.5)"""

CONTRAST = """selector => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const paint = colours => {  // one over the other, as the browser mixes them
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const element = document.querySelector(selector);
  const grounds = [];
  for (let each = element; each; each = each.parentElement) grounds.unshift(getComputedStyle(each).backgroundColor);
  const text = getComputedStyle(element).color;
  const pair = [paint(grounds), paint([...grounds, text])].map(luminance);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""

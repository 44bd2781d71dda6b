"""A panel's adapter menu on scripted engines: what is refused, odd or slow, and the comparison with the base."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_panel import Panel, Playground
from fakes import FakePool, Script, spec
from playwright.sync_api import Locator, Page, expect
from scripted_site import KOREAN, until
from serving import serving

from model_registry.registry import Registry
from playground.adapters.facts import AdapterChoice
from playground.errors import AdapterError

REFUSAL = "adapter_config.json of o/bad: modules_to_save names <b>wte</b>: train the adapter without it."
WARNING = "It says that it was trained for another model."
WORDS = "".join(KOREAN * 20)
LONG = "/home/someone/with/" + "a-rather-long-name/" * 6 + "adapter"


@pytest.fixture(scope="module")
def pool() -> FakePool:
    """Two adapters for "base"; `o/never` is inspected for ever; "slow" and "hangs" never end."""
    base = Script(
        choices=[AdapterChoice("formal", "Formal", "Says <b>sir</b>."), AdapterChoice("casual", "Casual")],
        refusals={"o/bad": AdapterError(REFUSAL)},
        warnings={"o/odd": [WARNING], LONG: [f"{WARNING} {LONG}"]},
        inspections={"o/never": 600.0},
    )
    specs = [spec("base", default_system="I am base."), spec("other"), spec("slow"), spec("hangs")]
    slow = Script(KOREAN * 20, 0.1, choices=[AdapterChoice("formal", "Formal")])
    return FakePool(Registry(specs), {"base": base, "slow": slow, "hangs": Script(["one "], hangs=True)})


@pytest.fixture(scope="module")
def site(pool: FakePool) -> Iterator[str]:
    with serving(pool, ["base", "other"]) as url:
        yield url


def menu(panel: Panel) -> Locator:
    return panel.root.get_by_label("Adapter of panel", exact=False).first


def field(panel: Panel) -> Locator:
    return panel.root.get_by_placeholder("owner/name, owner/name@revision, or a folder")


def offered(panel: Panel) -> list[str]:
    menu(panel).click()
    expect(panel.root.get_by_role("option").first).to_be_visible()
    panel.page.wait_for_timeout(300)
    names = [name.replace("✓", "").strip() for name in panel.root.get_by_role("option").all_inner_texts()]
    panel.page.keyboard.press("Escape")
    panel.page.keyboard.press("Tab")  # away from it, so that the next click opens it anew
    return names


def choose(panel: Panel, name: str) -> None:
    menu(panel).click()
    panel.root.get_by_role("option").filter(has_text=name).click()


def put_on(panel: Panel, name: str) -> None:
    choose(panel, name)
    expect(panel.root.locator(".block.adapter-about .about-line")).to_be_visible()


def type_one(panel: Panel, text: str) -> None:
    choose(panel, "From the Hub or a folder")
    field(panel).fill(text)
    field(panel).press("Enter")


def test_an_adapter_answers_beside_its_base_and_the_status_line_names_it(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    assert offered(left) == ["No adapter", "Formal", "Casual", "From the Hub or a folder …"]
    assert offered(right) == ["No adapter", "From the Hub or a folder …"]
    expect(left.root.get_by_role("button", name="Compare with base")).to_have_count(0)
    put_on(left, "Formal")
    about = left.root.locator(".block.adapter-about")
    for words in ("r 8", "2 layers", "1.2 MB", "revision ", "Says <b>sir</b>."):
        expect(about).to_contain_text(words)
    left.root.get_by_label("number input for Adapter scale of panel 1").fill("0.5")
    left.root.get_by_label("number input for Adapter scale of panel 1").press("Tab")
    right.choose("BASE")
    playground.ask("hi")
    left.wait("ended by itself")
    right.wait("ended by itself")
    assert left.answer() == "[formal × 0.5] Hello, world."
    assert right.answer() == "Hello, world."
    named = left.foot.locator("[title^='formal, revision sha256:']")
    expect(named).to_contain_text("+ formal@")
    expect(named).to_contain_text("× 0.5")
    expect(right.foot).not_to_contain_text("+")


def test_a_refusal_stands_at_the_menu_and_what_was_in_use_stays(playground: Playground, pool: FakePool) -> None:
    left = playground.panel(0)
    put_on(left, "Formal")
    type_one(left, "o/bad")
    box = left.root.locator(".block.adapter-notice .error-box")
    expect(box).to_contain_text(REFUSAL)
    expect(box).to_contain_text("Prompts go to formal@")
    expect(menu(left)).to_have_value("Formal")
    expect(field(left)).to_have_value("o/bad")
    above, below = box.bounding_box(), left.root.locator(".chat").bounding_box()
    assert above
    assert below
    assert above["y"] < below["y"]
    playground.ask("hi")
    left.wait("ended by itself")
    assert left.answer().startswith("[formal × 1]")
    left.press("Cancel")
    expect(box).to_have_count(0)
    expect(field(left)).to_have_count(0)
    assert "o/bad" not in str(offered(left))


def test_an_odd_one_is_used_with_its_warning_and_offered_from_then_on(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    type_one(left, "o/odd")
    expect(left.root.locator(".block.adapter-about .hint")).to_have_text(WARNING)
    expect(field(left)).to_have_count(0)
    expect(left.root.locator(".error-box")).to_have_count(0)
    assert menu(left).input_value().startswith("o/odd@")
    right.choose("BASE")
    expect(right.root.locator(".block.about")).to_contain_text("2.0 M")
    assert any(name.startswith("o/odd@") for name in offered(right))
    put_on(right, "o/odd@")
    left.choose("OTHER")
    expect(menu(left)).to_have_value("No adapter")
    expect(left.root.locator(".block.adapter-about")).to_be_hidden()
    expect(left.root.get_by_role("button", name="Compare with base")).to_have_count(0)
    assert offered(left) == ["No adapter", "From the Hub or a folder …"]


def test_a_check_that_lasts_holds_nobody_up_and_a_later_choice_overtakes_it(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    right.choose("BASE")
    type_one(left, "o/never")
    expect(left.root.locator(".block.adapter-notice")).to_contain_text("Inspecting o/never …")
    put_on(right, "Casual")
    playground.ask("hi")
    left.wait("ended by itself")
    right.wait("ended by itself")
    assert left.answer() == "Hello, world."
    assert right.answer() == "[casual × 1] Hello, world."
    put_on(left, "Formal")
    expect(left.root.locator(".inspecting")).to_have_count(0)
    type_one(left, "o/never")
    expect(left.root.locator(".inspecting")).to_be_visible()
    left.press("Cancel")
    expect(left.root.locator(".inspecting")).to_have_count(0)
    expect(menu(left)).to_have_value("Formal")


def test_switching_never_changes_an_answer_that_is_being_given(playground: Playground) -> None:
    left, right = playground.panel(0), playground.panel(1)
    left.choose("SLOW")
    right.choose("BASE")
    put_on(left, "Formal")
    playground.ask("hi")
    until(left.answer, playground.page)
    choose(left, "No adapter")
    put_on(right, "Casual")
    expect(left.root.get_by_role("button", name="Compare with base")).to_have_count(0)
    said = left.answer()
    until(lambda: len(left.answer()) > len(said), playground.page)
    left.press("Stop")
    left.wait("stopped")
    assert ("[formal × 1] " + WORDS).startswith(left.answer())
    expect(left.foot).to_contain_text("+ formal@")
    left.choose("BASE")
    playground.ask("again")
    left.wait("ended by itself")
    right.wait("ended by itself")
    assert left.answer() == "Hello, world."
    assert right.answer() == "[casual × 1] Hello, world."


def test_one_click_puts_the_plain_model_beside_its_adapter(playground: Playground, pool: FakePool) -> None:
    left, right = playground.panel(0), playground.panel(1)
    put_on(left, "Formal")
    left.open("System prompt")
    system = left.root.get_by_label("System prompt")
    expect(system).to_have_value("I am base.")
    system.fill("Be brief.")
    right.choose("HANGS")
    playground.ask("hi")
    until(right.answer, playground.page)
    left.press("Compare with base")
    expect(playground.page.locator("#hint")).to_contain_text("Panel 2 is still answering")
    expect(right.root.locator(".model input")).to_have_value("HANGS · ready")
    right.press("Stop")
    right.wait("stopped")
    left.press("Compare with base")
    expect(right.root.locator(".model input")).to_have_value("BASE · ready")
    expect(playground.page.locator("#hint .hint")).to_have_count(0)
    expect(right.prompts).to_have_text("hi")
    expect(menu(right)).to_have_value("No adapter")
    asked = len(pool.requests)
    playground.ask("once more")
    left.wait("ended by itself")
    right.wait("ended by itself")
    new = pool.requests[asked:]
    assert [request.messages[0].content for request in new] == ["Be brief."] * 2
    assert {request.adapter.id if request.adapter else None for request in new} == {"formal", None}
    assert {request.model_id for request in new} == {"base"}
    put_on(right, "Casual")
    right.press("Compare with base")
    third = playground.panel(2)
    expect(third.root.locator(".model input")).to_have_value("BASE · ready")
    expect(third.prompts).to_have_count(0)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(playground: Playground) -> None:
    page = playground.page
    page.set_viewport_size({"width": 390, "height": 844})
    left, right = playground.panel(0), playground.panel(1)
    type_one(left, LONG)
    expect(left.root.locator(".block.adapter-about .hint")).to_contain_text(WARNING)
    right.choose("BASE")
    type_one(right, "o/bad")
    expect(right.root.locator(".block.adapter-notice .error-box")).to_be_visible()
    playground.ask("hi")
    left.wait("ended by itself")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate(
        "[...document.querySelectorAll('#panels button, #panels input, #panels .hint, #panels .error-box, .foot')]"
        ".filter(e => e.checkVisibility()).map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().right])"
        ".filter(([_, right]) => right > 390.5)"
    )
    assert wide == []


def test_every_control_of_it_has_a_name(playground: Playground) -> None:
    left = playground.panel(0)
    put_on(left, "Formal")
    choose(left, "From the Hub or a folder")
    expect(left.root.get_by_role("textbox", name="Adapter of panel 1, from the Hub or a folder")).to_be_visible()
    expect(left.root.get_by_role("slider", name="Adapter scale of panel 1")).to_be_visible()
    for button in ("Use", "Cancel", "Compare with base"):
        expect(left.root.get_by_role("button", name=button, exact=True)).to_be_visible()


def test_the_texts_of_it_are_readable_in_the_dark(page: Page, site: str) -> None:
    playground = Playground(page, f"{site}?__theme=dark")
    left = playground.panel(0)
    type_one(left, "o/odd")
    expect(left.root.locator(".block.adapter-about .hint")).to_be_visible()
    shade = left.root.locator(".block.adapter-about .about-line span").first.evaluate(
        "e => getComputedStyle(e).color.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert min(shade) > 140

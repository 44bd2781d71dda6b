"""The page itself, on scripted engines: previews, system prompts, panels, seeds, menus, phones and dark mode."""

from __future__ import annotations

import pytest
from browser_panel import Panel, Playground
from fakes import FakePool, Script, spec
from playwright.sync_api import Page, expect
from scripted_site import until
from serving import serving

from model_registry.registry import Registry


def test_a_closed_preview_asks_the_server_nothing(playground: Playground, pool: FakePool) -> None:
    page = playground.page
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    encoded = pool.encoded.total()
    playground.prompt.press_sequentially("typing and typing", delay=10)
    page.wait_for_timeout(400)
    assert asked == []
    playground.panel(0).open("Template preview")
    expect(playground.panel(0).preview()).to_contain_text("typing and typing")
    playground.prompt.press_sequentially("!", delay=10)
    expect(playground.panel(0).preview()).to_contain_text("typing and typing!")
    assert pool.encoded.total() > encoded
    playground.panel(0).open("Template preview")
    expect(playground.panel(0).preview()).to_have_count(0)


def test_the_preview_never_stands_behind_an_answer(playground: Playground) -> None:
    left = playground.panel(0)
    left.choose("HANGS")
    left.open("Template preview")
    expect(left.root.locator(".preview")).to_have_count(1)
    playground.ask("first")
    until(left.answer, playground.page)
    expect(left.root.locator(".preview")).to_contain_text("Being answered")
    playground.panel(1).open("Template preview")
    playground.panel(1).wait("ended")
    playground.type("second")
    expect(playground.panel(1).preview()).to_contain_text("second")
    assert left.is_busy


def test_the_system_prompt_follows_the_model_until_it_is_changed(playground: Playground) -> None:
    left = playground.panel(0)
    left.open("System prompt")
    box = left.root.get_by_label("System prompt")
    expect(box).to_have_value("System of slow.")
    left.choose("QUICK")
    expect(box).to_have_value("System of quick.")
    box.fill("Mine.")
    left.choose("HOSTILE")
    playground.page.wait_for_timeout(300)
    expect(box).to_have_value("Mine.")
    left.press("Reset to the model's own")
    expect(box).to_have_value("System of hostile.")


def test_panels_are_added_up_to_four_and_removed_down_to_one(playground: Playground, pool: FakePool) -> None:
    page = playground.page
    shown = page.locator("#panels > .column")
    expect(shown).to_have_count(2)
    for count in (3, 4):
        playground.press("Add panel")
        expect(shown).to_have_count(count)
    expect(page.get_by_role("button", name="Add panel")).to_be_disabled()
    for index in range(4):
        playground.panel(index).choose("QUICK")
    playground.ask("all of you")
    for index in range(4):
        playground.panel(index).wait("ended by itself")
    for index, count in ((0, 3), (1, 2), (3, 1)):
        playground.panel(index).press("Remove")
        expect(shown).to_have_count(count)
    expect(page.get_by_role("button", name="Remove")).to_be_disabled()
    playground.ask("only you")
    until(lambda: len(pool.requests) == 5, page)
    playground.panel(2).wait("ended by itself")
    assert len(pool.requests) == 5


def test_a_seed_is_shown_settable_and_drawn_anew(playground: Playground, pool: FakePool) -> None:
    page = playground.page
    for index in range(2):
        playground.panel(index).choose("QUICK")
    page.get_by_role("button", name="Sampling").click()
    seed = page.get_by_label("Seed", exact=False).locator("visible=true").first
    field = page.locator("#seed input")
    first = field.input_value()
    assert int(first) > 0, seed
    page.get_by_role("button", name="New seed").click()
    expect(field).not_to_have_value(first)
    playground.ask("one")
    until(lambda: len(pool.requests) == 2, page)
    expect(field).to_have_value(str(pool.requests[0].sampling.seed))
    for index in range(2):
        playground.panel(index).wait(f"seed {pool.requests[0].sampling.seed}")
    field.fill("1234")
    expect(page.get_by_label("New seed for each prompt")).not_to_be_checked()
    playground.ask("two")
    until(lambda: len(pool.requests) == 4, page)
    assert {request.sampling.seed for request in pool.requests[2:]} == {1234}


def test_regenerate_asks_one_panel_again_with_a_new_seed(playground: Playground, pool: FakePool) -> None:
    left, right = playground.panel(0), playground.panel(1)
    for panel in (left, right):
        panel.choose("QUICK")
    playground.ask("one")
    left.wait("ended by itself")
    right.wait("ended by itself")
    before = right.foot.inner_text()
    left.press("Regenerate")
    until(lambda: len(pool.requests) == 3, playground.page)
    left.wait("ended by itself")
    assert left.answers.count() == right.answers.count() == 1
    assert right.foot.inner_text() == before
    assert pool.requests[2].sampling.seed != pool.requests[0].sampling.seed
    assert pool.requests[2].messages == pool.requests[0].messages


def test_a_stand_in_is_called_one_wherever_it_appears(page: Page) -> None:
    pool = FakePool(Registry([spec("slow"), spec("tiny", stand_in_for="slow")]))
    with serving(pool, ["tiny"]) as url:
        playground = Playground(page, url)
        expect(page.locator("#banner")).to_contain_text("tiny stand-ins")
        expect(page.locator("#banner code")).to_have_text("python app.py --models slow")
        expect(playground.panel(0).root.locator(".badge")).to_have_text("stand-in for slow")
        expect(playground.panel(0).root.locator(".model input")).to_have_value("TINY · stand-in · ready")


def test_the_menu_tells_the_models_state_anew_after_an_answer(page: Page) -> None:
    scripts = {"one": Script(state="download", detail="downloads 0.3 GB")}
    pool = FakePool(Registry([spec("one"), spec("two")]), scripts)
    with serving(pool, ["one", "two"]) as url:
        playground = Playground(page, url)
        menu = playground.panel(0).root.locator(".model input")
        expect(menu).to_have_value("ONE · downloads 0.3 GB")
        scripts["one"] = Script()
        playground.ask("hi")
        playground.panel(0).wait("ended by itself")
        expect(menu).to_have_value("ONE · ready")
        playground.panel(0).choose("TWO")
        expect(menu).to_have_value("TWO · ready")


def busy_panel(playground: Playground) -> Panel:
    playground.panel(0).choose("BROKEN")
    playground.panel(0).open("Template preview")
    playground.panel(0).open("System prompt")
    playground.page.get_by_role("button", name="Sampling").click()
    playground.ask("http://example.test/" + "long" * 60)
    expect(playground.panel(0).errors).to_be_visible()
    return playground.panel(1)


def test_a_phone_shows_everything_without_scrolling_sideways(playground: Playground) -> None:
    playground.page.set_viewport_size({"width": 390, "height": 844})
    other = busy_panel(playground)
    width = playground.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    wide = playground.page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, .preview, .error-box, .foot')]"
        ".filter(e => e.checkVisibility() && !e.closest('#examples'))"
        ".map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().right])"
        ".filter(([_, right]) => right > 390.5)"
    )
    assert wide == []
    boxes = [playground.panel(index).root.bounding_box() for index in range(2)]
    above, below = (box or pytest.fail("a panel is not shown") for box in boxes)
    assert below["y"] >= above["y"] + above["height"]
    assert above["x"] == below["x"]
    other.root.scroll_into_view_if_needed()
    expect(playground.prompt).to_be_in_viewport(ratio=1)
    expect(playground.page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)


def test_dark_mode_is_dark_and_readable(page: Page, site: str) -> None:
    playground = Playground(page, f"{site}?__theme=dark")
    busy_panel(playground)
    expect(playground.panel(0).prompts).to_be_visible()
    for selector in (
        "#panel-0 .user-row .md",
        "#panel-0 .error-box .sentence",
        "#panel-0 .preview .exact",
        "#header h1",
    ):
        ratio = page.evaluate(CONTRAST, selector)
        assert ratio > 4.5, f"{selector}: {ratio}"
    ground = page.locator(".gradio-container").evaluate("e => getComputedStyle(e).backgroundColor.match(/\\d+/g)")
    assert all(int(part) < 60 for part in ground[:3])


CONTRAST = """selector => {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const element = document.querySelector(selector);
  let ground = element;
  while ((rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(c => luminance(rgb(c)));
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


def test_choosing_a_model_comes_to_rest(playground: Playground, page: Page) -> None:
    """An event that paints what makes Gradio send the same event would go on without end."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    playground.panel(0).choose("OTHER")
    quiet = 0
    until(lambda: sent, page)
    for _ in range(100):
        before = len(sent)
        page.wait_for_timeout(300)
        quiet = quiet + 1 if len(sent) == before else 0
        if quiet == 5:
            return
    raise AssertionError(f"{len(sent)} events, and no end")

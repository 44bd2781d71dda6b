"""A model's card as its reader sees it: there while it is open, about the model in the menu, whole on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_panel import Playground
from fakes import FakePool
from playwright.sync_api import Locator, Page, expect
from serving import serving

from model_registry.registry import Registry

BRIGHTER_THAN_ITS_GROUND = """element => {
  const shade = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
  let ground = element;
  while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  return shade(getComputedStyle(element).color) - shade(getComputedStyle(ground).backgroundColor);
}"""


@pytest.fixture(scope="module")
def library() -> Iterator[str]:
    """The address of a page with the catalog's models, on scripted engines."""
    with serving(FakePool(Registry.load()), ["krutrim-1-instruct", "kullm3"]) as url:
        yield url


def card(playground: Playground, index: int) -> Locator:
    return playground.panel(index).root.locator(".model-card")


def test_a_card_is_there_while_it_is_open_and_follows_the_menu(page: Page, library: str) -> None:
    playground = Playground(page, library)
    first, second = playground.panel(0), playground.panel(1)
    first.open("About")
    expect(card(playground, 0)).to_contain_text("paper (arXiv 2502.09642)")
    expect(card(playground, 0).get_by_role("table", name="English")).to_contain_text("0.557")
    first.choose("KULLM3 stand-in")
    expect(card(playground, 0)).to_contain_text("A tiny stand-in for kullm3")
    second.choose("Krutrim-1 Base")
    expect(card(playground, 1)).to_have_count(0)
    first.open("About")
    expect(card(playground, 0)).to_have_count(0)
    second.open("About")
    expect(card(playground, 1)).to_contain_text("krutrim-ai-labs/Krutrim-1-base")


@pytest.mark.parametrize(("theme", "is_light_text"), [("", False), ("?__theme=dark", True)])
def test_a_phone_shows_it_whole_in_both_themes(page: Page, library: str, theme: str, is_light_text: bool) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    playground = Playground(page, f"{library}{theme}")
    playground.panel(0).open("About")
    expect(card(playground, 0).locator(".chart")).to_have_count(6)
    wide = page.evaluate(
        "[...document.querySelectorAll('.model-card, .model-card *:not(.unseen)')]"
        ".filter(e => e.getBoundingClientRect().right > 382.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    bars = page.evaluate("[...document.querySelectorAll('.chart i')].map(bar => bar.getBoundingClientRect().width)")
    assert len(bars) == 36 + 19 + 11 + 19 + 9 + 8
    assert min(bars) > 5
    for look in (".facts td", ".source", ".chart td", ".chart th.ours span"):
        contrast = card(playground, 0).locator(look).first.evaluate(BRIGHTER_THAN_ITS_GROUND)
        assert (contrast > 250) if is_light_text else (contrast < -250), look

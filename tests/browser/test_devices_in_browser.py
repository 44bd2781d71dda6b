"""The devices view as its user sees it: closed it asks nothing, open it follows the memory, its buttons act."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from browser_panel import PATIENCE_MS, Playground
from fakes import FakePool, Script, spec
from playwright.sync_api import Locator, Page, expect
from scripted_site import until
from serving import serving

from model_registry.registry import Registry
from playground.types import DeviceReport, DeviceUse, EngineLabel, LoadProgress

GB = 10**9
LOADING = LoadProgress("weights", 3_200_000_000, 14_700_000_000)
HOSTILE = "<img src=x onerror=alert(1)>"


class CrowdedPool(FakePool):
    """Two GPUs, one model whole and one spread over both. The cache holds what is being answered; leavers leave."""

    def memory(self) -> tuple[DeviceReport, ...]:
        return self._gpu("cuda:0", whole=14 * GB, spread=5 * GB), self._gpu("cuda:1", whole=0, spread=16 * GB)

    def _gpu(self, name: str, **weights: int) -> DeviceReport:
        uses = {
            model_id: DeviceUse(name, 24 * GB, 0, size, GB, GB // 2 if self.running[model_id] else 0)
            for model_id, size in weights.items()
            if size and model_id not in self.unloaded
        }
        free = 23 * GB - sum(use.weight_bytes + use.kv_bytes for use in uses.values())
        engines = tuple((EngineLabel(model_id), replace(use, free_bytes=free)) for model_id, use in uses.items())
        return DeviceReport(name, 24 * GB, free, engines)


@pytest.fixture
def crowd() -> FakePool:
    names = ("whole", "spread", "loads", "failed")
    scripts = {
        "whole": Script(["word "], hangs=True, place="WHOLE: whole on cuda:0."),
        "spread": Script(place=f"SPREAD: layers 0-9 on cuda:0, 10-47 on cuda:1, {HOSTILE}."),
        "loads": Script([], loading=[LOADING], hangs=True, state="loading", detail="loading", progress=LOADING),
        "failed": Script(state="failed", detail="FAILED could not be downloaded: the Hub is out of reach."),
    }
    return CrowdedPool(Registry([spec(name) for name in names]), scripts)


@pytest.fixture
def crowded(page: Page, crowd: FakePool) -> Iterator[Playground]:
    with serving(crowd, ["whole", "spread"]) as url:
        yield Playground(page, url)


def toggle(playground: Playground) -> None:
    playground.page.get_by_role("button", name="Devices").click()


def bar(playground: Playground, device: str) -> Locator:
    return playground.page.get_by_role("img", name=device)


def row(playground: Playground, model_id: str) -> Locator:
    return playground.page.locator(f'.device-model[data-model="{model_id}"]')


def width(piece: Locator) -> float:
    box = piece.bounding_box()
    return box["width"] if box else 0.0


def test_closed_it_asks_the_server_nothing_and_open_it_asks_each_second(crowded: Playground) -> None:
    page = crowded.page
    page.wait_for_timeout(800)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == []
    toggle(crowded)
    begun = time.monotonic()
    until(lambda: len(asked) >= 4, page, seconds=30)  # one that opens it, and three of its clock
    assert time.monotonic() - begun > 2
    toggle(crowded)
    page.wait_for_timeout(1500)
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []


def test_the_bars_show_the_weights_of_both_models_and_what_is_left(crowded: Playground) -> None:
    toggle(crowded)
    first, second = bar(crowded, "cuda:0"), bar(crowded, "cuda:1")
    expect(first).to_have_accessible_name(
        "cuda:0, 24.0 GB: WHOLE weights 14.0 GB; WHOLE KV cache in use 0 MB; WHOLE reserved 1.0 GB; "
        "SPREAD weights 5.0 GB; SPREAD KV cache in use 0 MB; SPREAD reserved 1.0 GB; Everything else 1.0 GB; "
        "Free 2.0 GB"
    )
    share = width(first.locator(".weights").first) / width(first)
    assert share == pytest.approx(14 / 24, abs=0.02)
    colours = [
        piece.evaluate("piece => getComputedStyle(piece).backgroundColor")
        for piece in (*first.locator(".weights").all(), *second.locator(".weights").all())
    ]
    assert colours[1] == colours[2] != colours[0]
    expect(row(crowded, "spread")).to_contain_text(f"layers 0-9 on cuda:0, 10-47 on cuda:1, {HOSTILE}.")
    expect(row(crowded, "failed")).to_contain_text("the Hub is out of reach")


def test_the_cache_fills_while_a_panel_answers_and_empties_after(crowded: Playground) -> None:
    toggle(crowded)
    used = bar(crowded, "cuda:0").locator(".kv-used").first
    expect(row(crowded, "whole")).to_contain_text("0.0 of 1.0 GB in use")
    assert width(used) == 0
    crowded.ask("hi")
    expect(row(crowded, "whole")).to_contain_text("0.5 of 1.0 GB in use")
    until(lambda: width(used) > 5, crowded.page)
    crowded.panel(0).press("Stop")
    expect(row(crowded, "whole")).to_contain_text("0.0 of 1.0 GB in use")
    until(lambda: width(used) == 0, crowded.page)


def test_a_model_is_unloaded_when_it_is_not_answering(crowded: Playground, crowd: FakePool) -> None:
    toggle(crowded)
    crowded.ask("hi")
    until(lambda: crowd.running["whole"], crowded.page)
    row(crowded, "whole").get_by_role("button", name="Unload WHOLE").click()
    message = crowded.page.locator("#devices-message")
    expect(message).to_contain_text("WHOLE is answering")
    assert crowd.unloaded == []
    crowded.panel(0).press("Stop")
    crowded.panel(0).wait("stopped")
    row(crowded, "whole").get_by_role("button", name="Unload WHOLE").click()
    expect(message).to_contain_text("WHOLE is unloaded. The next prompt to it loads it again.")
    expect(row(crowded, "whole")).to_have_count(0)
    expect(bar(crowded, "cuda:0").locator(".weights")).to_have_count(1)
    expect(crowded.panel(0).root.locator(".model input")).to_have_value("WHOLE · on this machine")
    expect(crowded.panel(0).root.locator(".about-line")).to_contain_text("Loads on the next prompt")


def test_a_load_is_cancelled_and_its_panel_says_so_and_asks_again(crowded: Playground, crowd: FakePool) -> None:
    left = crowded.panel(0)
    left.choose("LOADS")
    expect(left.root.locator(".about-line")).to_contain_text("Is being loaded")
    toggle(crowded)
    crowded.ask("hi")
    expect(left.foot).to_contain_text("loads: Loading weights · 3.2 of 14.7 GB")
    expect(row(crowded, "loads")).to_contain_text("Loading weights · 3.2 of 14.7 GB")
    progress = row(crowded, "loads").get_by_role("progressbar")
    expect(progress).to_have_attribute("aria-valuenow", "22")
    assert width(progress.locator("span")) / width(progress) == pytest.approx(0.2177, abs=0.01)
    row(crowded, "loads").get_by_role("button", name="Cancel LOADS").click()
    expect(crowded.page.locator("#devices-message")).to_contain_text("Loading LOADS was cancelled.")
    expect(left.errors).to_contain_text("Loading LOADS was cancelled")
    expect(row(crowded, "loads")).to_have_count(0)
    crowd.scripts = {}
    left.press("Regenerate")
    left.wait("ended by itself")
    assert left.answer() == "Hello, world."


def test_the_picture_changes_under_a_button_that_keeps_the_focus(crowded: Playground, crowd: FakePool) -> None:
    toggle(crowded)
    button = row(crowded, "whole").get_by_role("button", name="Unload WHOLE")
    button.focus()
    crowded.panel(1).choose("WHOLE")
    button.focus()
    crowd.running["whole"] += 1
    expect(row(crowded, "whole")).to_contain_text("0.5 of 1.0 GB in use")
    expect(button).to_be_focused()


@pytest.mark.parametrize("theme", ["", "?__theme=dark"])
def test_a_phone_shows_it_whole_in_both_themes(page: Page, crowd: FakePool, theme: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    with serving(crowd, ["whole", "spread"]) as url:
        playground = Playground(page, f"{url}{theme}")
        toggle(playground)
        expect(row(playground, "failed")).to_be_visible()
        row(playground, "loads").get_by_role("button").click()
        expect(page.locator("#devices-message")).to_be_visible()
        wide = page.evaluate(
            "[...document.querySelectorAll('.devices *, #devices-message *')]"
            ".filter(e => e.getBoundingClientRect().right > 382.5).map(e => e.outerHTML.slice(0, 80))"
        )
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_real_app_shows_its_stand_ins_and_gives_their_memory_back(page: Page, app: str) -> None:
    playground = Playground(page, app)
    toggle(playground)
    krutrim, kullm3 = row(playground, "demo-krutrim"), row(playground, "demo-kullm3")
    for model in (krutrim, kullm3):
        expect(model).to_contain_text("Ready · KV cache 0.0 of", timeout=PATIENCE_MS)
        expect(model.locator(".place")).to_contain_text("whole on ")
    weights = page.locator(".device-bar .weights:not(.none)")
    expect(weights).to_have_count(2)
    assert all(width(piece) >= 2 for piece in weights.all())

    page.evaluate(WATCH_THE_CACHE)
    until(lambda: answer_once(playground) and page.evaluate("window.cache_seen"), page, seconds=60)
    for model in (krutrim, kullm3):
        expect(model).to_contain_text("KV cache 0.0 of")

    krutrim.get_by_role("button", name="Unload").click()
    expect(page.locator("#devices-message")).to_contain_text("stand-in is unloaded.", timeout=PATIENCE_MS)
    expect(krutrim).to_have_count(0)
    expect(weights).to_have_count(1)
    answer_once(playground)
    expect(krutrim).to_contain_text("Ready")
    assert playground.panel(0).errors.count() == 0


def answer_once(playground: Playground) -> bool:
    playground.ask("A poem about rain")
    for index in range(2):
        expect(playground.panel(index).root.locator(".foot").last).to_be_visible()
        playground.panel(index).wait("tokens")
    return True


WATCH_THE_CACHE = """() => {
  window.cache_seen = false;
  new MutationObserver(() => {
    window.cache_seen ||= [...document.querySelectorAll('.device-bar .kv-used')].some(e => !e.matches('.none'));
  }).observe(document.querySelector('#devices'), {subtree: true, attributes: true, childList: true});
}"""

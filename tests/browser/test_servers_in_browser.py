"""Panels whose models run on servers, as their users see them: side by side, one of them killed, one that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_panel import Panel, Playground
from fake_server import FakeServer, fake_server, refuses
from playwright.sync_api import Page, expect
from real_server import MODEL_NAME, RealServer, real_servers
from server_entries import lists, write_server
from serving import free_port, run_app, stop_app

from model_registry.demo.corpus import load_language, pairs
from model_registry.demo.standins import STAND_INS

MODELS = ("demo-krutrim", "demo-kullm3")
LONGEST = {
    "demo-krutrim": max(pairs(load_language("hi"), STAND_INS["krutrim"].words()), key=lambda pair: len(pair[1]))[0],
    "demo-kullm3": max(pairs(load_language("ko"), STAND_INS["kullm3"].words()), key=lambda pair: len(pair[1]))[0],
}


@pytest.fixture
def real(tmp_path: Path) -> Iterator[dict[str, RealServer]]:
    with real_servers(tmp_path, *MODELS) as running:
        yield running


@pytest.fixture
def fronted(real: dict[str, RealServer], tmp_path: Path) -> Iterator[str]:
    """The app as a front for both servers, which its catalog names."""
    catalogs = [
        write_server(
            tmp_path / f"{model}.toml", server.url, serves=model, server_id=f"far-{model}", models=(MODEL_NAME,)
        )
        for model, server in real.items()
    ]
    options = [part for path in catalogs for part in ("--catalog", str(path))]
    port = free_port()
    process = run_app(port, "--models", ",".join(MODELS), *options)
    yield f"http://127.0.0.1:{port}/"
    stop_app(process)


def place(panel: Panel) -> None:
    panel.root.get_by_role("button", name="Runs on").click()


def choose_place(panel: Panel, name: str) -> None:
    panel.root.get_by_label("Place of panel", exact=False).click()
    panel.root.get_by_role("option").filter(has_text=name).click()


def name_server(panel: Panel, url: str, key: str = "", model: str = "") -> None:
    """Type a server into an open box, which has the fields already."""
    panel.root.get_by_label("Address").fill(url)
    if key:
        panel.root.get_by_label("Key", exact=True).fill(key)
    if model:
        there = panel.root.get_by_label("Model there").last
        there.fill(model)
        there.press("Enter")
    panel.root.locator(".use-server").click()


def test_two_panels_on_two_real_servers_stream_side_by_side_and_one_is_killed(
    page: Page, fronted: str, real: dict[str, RealServer]
) -> None:
    playground = Playground(page, fronted)
    panels = [playground.panel(index) for index in range(2)]
    for panel, server in zip(panels, real.values(), strict=True):
        expect(panel.root.locator(".place-box")).to_contain_text("Runs on FAR-")
        expect(panel.root.locator(".block.about")).to_contain_text(f"Answers come from 127.0.0.1:{server.port}")
        expect(panel.adapter).to_be_disabled()
        expect(panel.adapter).to_have_value("Adapters: under Runs on")
    playground.watch()
    playground.ask(LONGEST["demo-kullm3"])
    playground.until_both_grew()
    for panel, server in zip(panels, real.values(), strict=True):
        panel.wait("ended by itself")
        expect(panel.foot).to_contain_text(f"127.0.0.1:{server.port} · {MODEL_NAME} · as text")
    whole = panels[1].answer()
    playground.press("Clear all")
    expect(panels[1].prompts).to_have_count(0)
    playground.ask(LONGEST["demo-kullm3"])
    expect(panels[1].answers).to_have_count(1)
    real["demo-kullm3"].kill()
    expect(panels[1].errors).to_contain_text("broke while it answered")
    said = panels[1].answer()
    assert said
    assert whole.startswith(said)
    panels[0].wait("ended by itself")
    expect(panels[0].errors).to_have_count(0)
    panels[1].press("Regenerate")
    expect(panels[1].errors).to_contain_text("cannot be reached")
    place(panels[1])
    choose_place(panels[1], "This machine")
    expect(panels[1].adapter).to_be_enabled()
    panels[1].press("Regenerate")
    panels[1].wait("ended by itself")
    expect(panels[1].foot).not_to_contain_text("127.0.0.1")
    assert panels[1].answer()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server(lists("kullm3", "kullm3-formal")) as running:
        yield running


def test_a_server_that_is_named_is_used_once_it_answers_and_forgotten_with_its_model(
    page: Page, app: str, server: FakeServer
) -> None:
    playground = Playground(page, app)
    panel = playground.panel(0)
    place(panel)
    choose_place(panel, "Another server")
    panel.root.get_by_label("Address").fill(server.url)
    panel.root.get_by_role("button", name="List models").click()
    expect(panel.root.get_by_label("Model there").last).to_have_value("kullm3")
    name_server(panel, server.url, model="typed-by-hand")
    notice = panel.root.locator(".block.place-notice")
    expect(notice).to_contain_text("Whether it has typed-by-hand shows with the first prompt.")
    name_server(panel, server.url, model="kullm3-formal")
    expect(notice).to_contain_text(f"In use: prompts go to {server.host} · kullm3-formal.")
    expect(panel.adapter).to_be_disabled()
    server.answer = refuses(503)
    panel.root.locator(".use-server").click()
    expect(panel.errors).to_contain_text(f"Prompts go to {server.host} · kullm3-formal, as before.")
    server.answer = lists("kullm3-formal")
    panel.open("Template preview")
    playground.ask("नमस्ते")
    panel.wait("ended by itself")
    assert panel.answer() == "far away"
    expect(panel.foot).to_contain_text(f"{server.host} · kullm3-formal · as token ids")
    expect(panel.root.locator(".preview")).to_contain_text(f"Went to {server.host} as these token ids.")
    panel.choose("KULLM3 stand-in")
    expect(panel.root.locator(".place-box")).to_contain_text("Runs on this machine")
    expect(panel.adapter).to_be_enabled()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_box_stays_within_its_panel(page: Page, app: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    panel = Playground(page, app).panel(0)
    place(panel)
    choose_place(panel, "Another server")
    expect(panel.root.locator(".use-server")).to_be_visible()
    wide = "() => document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide)
    outside = """box => [...box.querySelectorAll('*')].filter(each => {
        const inner = each.getBoundingClientRect(), outer = box.getBoundingClientRect();
        return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
    }).length"""
    assert panel.root.locator(".place-box").evaluate(outside) == 0
    assert re.search("of an OpenAI-compatible API", panel.root.locator(".place-box").inner_text())

"""A headless Chromium, pages that record what they ask for, and the app to look at."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from browser_panel import Playground
from browser_path import ARGUMENTS, installed_browser
from fakes import FakePool
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright
from scripted_site import scripted_pool
from serving import free_port, run_app, serving, stop_app

PATIENCE_MS = 60_000
"""For what a page is to do in a moment: as long as a machine may take that does three other things."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/browser/" in item.path.as_posix():
            item.add_marker("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """No longer than a module: Playwright keeps a loop running in this thread, where asyncio's tests want theirs."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=installed_browser(), args=ARGUMENTS)
        expect.set_options(timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page. It fails the test if the page asks any other host, or if one of its scripts breaks."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    strangers: list[str] = []
    broken: list[str] = []
    page.on("request", lambda request: strangers.append(request.url) if is_elsewhere(request.url) else None)
    page.on("pageerror", lambda error: broken.append(str(error)))
    yield page
    context.close()
    assert strangers == []
    assert broken == []


def is_elsewhere(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    """The address of `python app.py`, with the stand-ins on their real engines. Waiting, it takes a tenth of a core."""
    port = free_port()
    process = run_app(port, "--models", "demo-krutrim,demo-kullm3")
    yield f"http://127.0.0.1:{port}/"
    stop_app(process)


@pytest.fixture(scope="module")
def client(app: str) -> Client:
    """The app as a program sees it."""
    return Client(app, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def pool() -> FakePool:
    return scripted_pool()


@pytest.fixture(scope="module")
def site(pool: FakePool) -> Iterator[str]:
    with serving(pool, ["slow", "other"]) as url:
        yield url


@pytest.fixture
def playground(page: Page, site: str, pool: FakePool) -> Playground:
    """The page on scripted engines; the tests of the real ones have a `playground` of their own."""
    pool.requests.clear()
    return Playground(page, site)

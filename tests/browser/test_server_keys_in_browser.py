"""A typed key reaches its server and is found nowhere else; a public page asks no server that nobody listed."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_panel import Panel, Playground
from endpoint_client import generate
from fake_server import FakeServer, fake_server
from fakes import FakePool, spec
from gradio_client import Client
from playwright.sync_api import Browser, Page, Request, expect
from server_entries import lists, server_entry
from serving import free_port, run_app, serving, serving_page

from model_registry.registry import Registry
from playground.engines.elsewhere import Elsewhere
from playground.ui.door import leaving
from playground.ui.elsewhere.place import KeptKey

KEY = "sk-typed-by-a-user-31337"
STORES = """async () => JSON.stringify({
  local: {...localStorage}, session: {...sessionStorage}, cookies: document.cookie, address: location.href,
  databases: indexedDB.databases ? await indexedDB.databases() : [], caches: await caches.keys(),
  fields: [...document.querySelectorAll('input, textarea')].map(field => field.value),
})"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server(lists("kullm3")) as running:
        yield running


def open_fields(panel: Panel) -> None:
    panel.root.get_by_role("button", name="Runs on").click()
    panel.root.get_by_label("Place of panel", exact=False).click()
    panel.root.get_by_role("option").filter(has_text="Another server").click()
    expect(panel.root.get_by_label("Key", exact=True)).to_be_visible()


def bodies(finished: list[Request]) -> str:
    """What the browser was sent, as far as it came to an end; scripts and styles apart."""
    kinds = ("fetch", "xhr", "document", "eventsource")
    answers = [request.response() for request in finished if request.resource_type in kinds]
    return "\n".join(answer.text() for answer in answers if answer and answer.status == 200)


def files_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def test_a_typed_key_is_in_the_servers_header_and_nowhere_else(
    page: Page, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine_4242")
    port = free_port()
    process = run_app(port, "--models", "demo-krutrim,demo-kullm3")
    url = f"http://127.0.0.1:{port}/"
    try:
        finished: list[Request] = []
        page.on("requestfinished", lambda request: finished.append(request))
        console: list[str] = []
        page.on("console", lambda message: console.append(message.text))
        playground = Playground(page, url)
        panel = playground.panel(0)
        open_fields(panel)
        key = panel.root.get_by_label("Key", exact=True)
        panel.root.get_by_label("Address").fill(server.url)
        key.fill(KEY)
        panel.root.get_by_role("button", name="List models").click()
        expect(panel.root.locator(".key-line")).to_contain_text(f"Key is set for {server.host}")
        expect(key).to_have_value("")
        expect(panel.root.get_by_label("Model there").last).to_have_value("kullm3")
        panel.root.locator(".use-server").click()
        expect(panel.root.locator(".block.place-notice")).to_contain_text("In use")
        playground.ask("नमस्ते")
        panel.wait("ended by itself")
        panel.press("Regenerate")
        panel.wait("ended by itself")
        panel.open("Template preview")
        expect(panel.preview()).to_be_visible()
        client = Client(url, verbose=False, analytics_enabled=False)
        told = [client.predict(api_name="/models"), generate(client, "demo-kullm3", [{"role": "user", "content": "a"}])]
        seen = {
            "page": page.content(),
            "stores": page.evaluate(STORES),
            "console": "\n".join(console),
            "responses": bodies(finished),
            "config": read(f"{url}config"),
            "info": read(f"{url}gradio_api/info"),
            "programs": json.dumps(told),
        }
        assert "Key is set for" in seen["page"]
        panel.root.get_by_role("button", name="Forget").click()
        expect(panel.root.locator(".key-line")).to_have_count(0)
        panel.press("Regenerate")
        panel.wait("ended by itself")
        client.close()
    finally:
        process.terminate()
        log = process.communicate(timeout=60)[0]
    headers = [asked.headers["authorization"] for asked in server.asked]
    assert headers[:-1] == [f"Bearer {KEY}"] * (len(headers) - 1)
    assert len(headers) >= 5
    assert headers[-1] == "Bearer -", "forgotten, and the machine's own token is none of theirs"
    seen |= {"log": log, "files": files_under(tmp_path).decode("utf-8", "replace")}
    assert [name for name, text in seen.items() if KEY in text] == []
    assert "hf_of_the_machine_4242" not in log


def kept_keys(sessions: dict[str, Any]) -> list[str]:
    values = [value for session in list(sessions.values()) for value in list(session.state_data.values())]
    return [value.secret.get_secret_value() for value in values if isinstance(value, KeptKey)]


def test_a_page_that_is_closed_leaves_no_key_behind(
    browser: Browser, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "GRACE_S", 0.5)
    pool = FakePool(Registry([spec("near")]))
    pool.elsewhere = Elsewhere(pool.registry, any_endpoint=True)
    with serving_page(pool, ["near"]) as served:
        page = browser.new_page()
        panel = Playground(page, served.local_url).panel(0)
        open_fields(panel)
        panel.root.get_by_label("Address").fill(server.url)
        panel.root.get_by_label("Key", exact=True).fill(KEY)
        panel.root.get_by_role("button", name="List models").click()
        expect(panel.root.locator(".key-line")).to_contain_text(f"Key is set for {server.host}")
        sessions = served.app.state_holder.session_data
        page.wait_for_timeout(2_000)
        assert kept_keys(sessions) == [KEY], "it stays while the page does"
        page.close()
        for _ in range(200):
            if not kept_keys(sessions):
                break
            time.sleep(0.1)
        assert kept_keys(sessions) == []
        assert KEY not in str([[*session.components] for session in sessions.values()])


@pytest.fixture
def public(server: FakeServer) -> Iterator[tuple[str, FakePool]]:
    """A page as strangers see it: one server may be named, another is the catalog's; `server` is neither."""
    listed, catalog = "http://127.0.0.1:9/v1", "http://127.0.0.1:19/v1"
    pool = FakePool(Registry([spec("near"), spec("far")], servers=[server_entry(catalog, "far")]))
    pool.elsewhere = Elsewhere(pool.registry, [listed])
    with serving(pool, ["near", "far"]) as url:
        yield url, pool


def made_up(url: str, handler: str, data: list[Any]) -> str:
    """What the page says to an event that no page of ours would send: the components of `handler`, with these values
    first and nothing behind them."""
    config = json.loads(read(f"{url}config"))
    button = next(each["id"] for each in config["components"] if handler in each["props"].get("elem_classes", []))
    event = next(
        each for each in config["dependencies"] if [button, "click"] in [[*each_] for each_ in each["targets"]]
    )
    rest = [None] * (len(event["inputs"]) - len(data))
    asked = {"fn_index": event["id"], "data": [*data, *rest], "session_hash": "made-up", "event_data": None}
    request = urllib.request.Request(
        f"{url}gradio_api/queue/join", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).close()
    return read(f"{url}gradio_api/queue/data?session_hash=made-up")


@pytest.mark.parametrize("handler", ["use-server", "list-models"])
def test_a_public_page_refuses_a_made_up_event_that_names_another_server(
    public: tuple[str, FakePool], server: FakeServer, handler: str
) -> None:
    url, pool = public
    said = made_up(url, handler, [server.url, KEY, "m", True, "near"])
    assert "process_completed" in said
    assert server.asked == []
    assert KEY not in said
    del pool


def test_a_public_page_offers_the_listed_servers_and_no_field_for_another(
    page: Page, public: tuple[str, FakePool]
) -> None:
    url, _ = public
    playground = Playground(page, url)
    far, near = playground.panel(1), playground.panel(0)
    expect(far.root.locator(".place-box")).to_contain_text("Runs on FAR · 127.0.0.1:19")
    open_fields(near)
    address = near.root.get_by_label("Address")
    expect(address).to_have_value("http://127.0.0.1:9/v1")
    expect(address).to_have_attribute("readonly", "")
    near.root.locator(".use-server").click()
    expect(near.errors).to_contain_text("List models asks it")


def test_a_page_that_may_ask_no_server_has_no_box_for_one(page: Page, site: str) -> None:
    Playground(page, site)
    expect(page.locator("#panel-0 .place-box")).to_be_hidden()

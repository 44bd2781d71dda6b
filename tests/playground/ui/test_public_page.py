"""The page as strangers meet it: what its server gives away, takes, writes down and asks of others."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from endpoint_client import generate
from fakes import FakePool, Script, spec
from gradio_client import Client
from gradio_client.exceptions import AppError
from raw_page import PageMap, RawSession, until
from serving import serving, serving_page

from model_registry.registry import Registry
from playground.limits import MAX_PANELS, OPEN, PUBLIC, Limits
from playground.ui.build import CLEAN_UP_S
from playground.ui.event_kinds import MOST_QUEUED, most_events

NARROW = Limits(prompt_characters=100, answer_tokens=64, turns=2, places=1, waiting=1, sessions=20)
PASSWORD = "correct-horse-battery"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def looked_up() -> list[str]:
    """The names that anybody in this process asked the network for."""
    return []


@pytest.fixture(scope="module")
def pool() -> FakePool:
    return FakePool(Registry([spec("a"), spec("b"), spec("slow")]), {"slow": Script(["word "] * 2_000, pause_s=0.05)})


@pytest.fixture(scope="module")
def page(pool: FakePool, looked_up: list[str]) -> Iterator[gr.Blocks]:
    """Launched with a look at who is asked for; sessions end soon after they are closed, as in Gradio's own tests."""
    ask = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        looked_up.append(str(host))
        return ask(host, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setenv("GRADIO_IS_E2E_TEST", "1")
        with serving_page(pool, ["a", "b"], limits=NARROW, proxies=1, typed_folders=False) as page:
            yield page


@pytest.fixture(scope="module")
def site(page: gr.Blocks) -> str:
    return str(page.local_url)


@pytest.fixture
def http(site: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def client(site: str) -> Iterator[Client]:
    client = Client(site, verbose=False, analytics_enabled=False)
    yield client
    client.close()


@pytest.mark.parametrize(
    "route",
    [
        "upload",
        "upload?upload_id=1",
        "deep_link?session_hash=x",
        "process_recording",
        "stream/1",
        "proxy=https://x.test",
        "component_server",
        "component_server/",
        "dev/reload",
        "vibe-edit",
        "vibe-code/",
        "vibe-starter-queries",
        "undo-vibe-edit",
    ],
)
def test_routes_that_the_page_has_no_use_for_are_shut(http: httpx.Client, route: str) -> None:
    for answer in (http.post(f"/gradio_api/{route}", files={"files": b"x"}), http.get(f"/gradio_api/{route}")):
        assert answer.status_code == 403


def test_nobody_sends_more_than_an_event_can_need(http: httpx.Client) -> None:
    long = b'{"data": ["' + b"x" * 1_100_000 + b'"]}'
    assert http.post("/gradio_api/run/predict", content=long).status_code == 413
    assert http.post("/gradio_api/queue/join", content=iter([long])).status_code == 411


@pytest.mark.parametrize("path", ["/etc/passwd", "app.py", "playground/settings.py", ".git/config", "../../etc/passwd"])
def test_no_file_of_the_machine_is_served(http: httpx.Client, path: str) -> None:
    assert http.get(f"/gradio_api/file={path}").status_code in (403, 404)
    assert http.get(f"/gradio_api/file={Path(path).absolute()}").status_code in (403, 404)


def test_there_is_no_monitoring_and_no_run_history(http: httpx.Client) -> None:
    for path in ("/monitoring", "/monitoring/summary", "/monitoring/key"):
        assert http.get(path).status_code >= 400
    assert http.get("/gradio_api/run-history/buckets").status_code == 403
    config = http.get("/config").json()
    assert config.get("run_history") in (None, False)
    assert not config.get("analytics_enabled")


def test_what_everybody_can_read_holds_no_secret(http: httpx.Client) -> None:
    for path in ("/config", "/gradio_api/openapi.json", "/gradio_api/info"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert PASSWORD not in answer.text
    told = http.get("/config").json()
    assert not any("password" in str(part["props"].get("value", "")).lower() for part in told["components"])


def test_a_browser_is_told_to_ask_nobody_else(http: httpx.Client) -> None:
    for path in ("/", "/gradio_api/info"):
        rules = dict(rule.split(" ", 1) for rule in http.get(path).headers["content-security-policy"].split("; "))
        assert (rules["default-src"], rules["connect-src"], rules["img-src"]) == (
            "'self'",
            "'self'",
            "'self' data: blob:",
        )
        assert rules["frame-src"] == rules["object-src"] == "'none'"
        assert rules["form-action"] == rules["base-uri"] == "'self'"
        assert "frame-ancestors" not in rules, "a Space is shown in a frame"


def test_the_server_asks_nobody_either(client: Client, looked_up: list[str]) -> None:
    generate(client, "a", MESSAGES, {"temperature": 0})
    assert {host for host in looked_up if host not in ("127.0.0.1", "localhost", "0.0.0.0", "None", "")} == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", [{"role": "user", "content": "x" * 101}]), "messages.0.content: 101 characters, and at most 100"),
        (("a", MESSAGES * 3), "2 prompts, and may not go on here"),
        (("a", MESSAGES, {"max_new_tokens": 65}), "at most 64 tokens may be asked for here, not 65"),
        (("a", MESSAGES, {"stop": ["x" * 60, "y" * 60]}), "sampling.stop: 120 characters"),
        (("a", MESSAGES, {}, "x" * 101), "adapter: 101 characters"),
    ],
)
def test_programs_keep_to_the_same_limits(client: Client, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(AppError) as caught:
        generate(client, *arguments)
    assert words in str(caught.value)


def test_so_do_those_that_only_look(client: Client) -> None:
    with pytest.raises(AppError, match="text: 101 characters"):
        client.predict("a", "x" * 101, api_name="/tokenize")
    with pytest.raises(AppError, match="101 characters"):
        client.predict("a", [{"role": "user", "content": "x" * 101}], api_name="/render_prompt")


def test_a_program_that_names_no_length_gets_the_longest_that_there_is(client: Client, pool: FakePool) -> None:
    generate(client, "a", MESSAGES)
    assert pool.requests[-1].sampling.max_new_tokens == 64


async def test_a_program_waits_in_the_same_line_as_the_page_and_is_told_its_place(site: str, client: Client) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        session = RawSession(http, await PageMap.read(http), "192.0.2.1")
        arguments = ["slow", MESSAGES, None, None, 1.0, None, None]
        asked = await http.post("/gradio_api/call/generate", json={"data": arguments})
        async with http.stream("GET", f"/gradio_api/call/generate/{asked.json()['event_id']}") as held:
            lines = held.aiter_lines()
            await anext(lines)
            waiting = client.submit("a", MESSAGES, api_name="/generate")
            await until(lambda: len(waiting.outputs()) > 0)
            assert not await session.send("hello")
            assert session.hint == "1 prompt waits in line already: try again in a minute."
        await until(lambda: waiting.done())  # the other has vanished, which the next word for it tells
        first, *_, last = waiting.outputs()
        assert (first["waiting"]["position"], first["loading"], first["text"]) == (1, None, "")
        assert {"position": 0, "estimate_s": 0.0} in [step["waiting"] for step in waiting.outputs()]
        assert (last["waiting"], last["text"]) == (None, "Hello, world.")


async def test_what_a_closed_page_knew_is_forgotten(page: gr.Blocks, site: str) -> None:
    holder = page.app.state_holder
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        session = RawSession(http, await PageMap.read(http), "192.0.2.2")
        async with http.stream("GET", f"/gradio_api/heartbeat/{session.hash}") as beat:
            lines = beat.aiter_lines()
            await anext(lines)
            assert await session.send("remember me")
            await session.follow()
            assert "remember me" in str(holder.session_data[session.hash].state_data)
        await until(lambda: "remember me" not in str(holder.session_data[session.hash].state_data))


async def test_no_more_pages_are_kept_than_there_may_be(page: gr.Blocks, site: str) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        found = await PageMap.read(http)
        for number in range(30):
            await RawSession(http, found, f"192.0.3.{number}").send("")
    assert len(page.app.state_holder.session_data) <= 20


def test_gradios_own_queue_has_room_for_all_who_wait_in_ours(page: gr.Blocks) -> None:
    """It tells nobody a place, and one event that waits there keeps those behind it."""
    queued = [event for event in page.fns.values() if event.queue and event.fn]
    answers = [event for event in queued if event.concurrency_limit is None]
    assert len(answers) == 2 * MAX_PANELS + 1, "Send and Regenerate of each panel, and /generate"
    others = {event.concurrency_id: event.concurrency_limit for event in queued if event not in answers}
    assert all(isinstance(limit, int) for limit in others.values())
    room = page._queue.max_thread_count - sum(others.values())  # type: ignore[arg-type]
    assert room > MAX_PANELS * ((NARROW.places or 0) + (NARROW.waiting or 0))
    assert page._queue.max_size == MOST_QUEUED
    assert most_events(PUBLIC) > most_events(NARROW) > most_events(OPEN)


def test_temporary_files_go(page: gr.Blocks) -> None:
    assert page.delete_cache == CLEAN_UP_S


def test_where_users_are_named_nobody_else_comes_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pool = FakePool(Registry([spec("a")]))
    users = (("asha", PASSWORD),)
    with serving(pool, ["a"], limits=PUBLIC, users=users) as url:
        with httpx.Client(base_url=url) as stranger:
            assert stranger.get("/config").status_code == 401
            assert stranger.post("/gradio_api/run/predict", json={"data": [], "fn_index": 0}).status_code == 401
            assert stranger.post("/gradio_api/queue/join", json={"data": [], "fn_index": 0}).status_code == 401
            for number in range(60):  # nobody counts them, as the docs say
                guess = {"username": "asha", "password": f"x{number}"}
                assert stranger.post("/login", data=guess).status_code == 400
            assert stranger.get("/config").status_code == 401
            assert stranger.post("/login", data={"username": "asha", "password": PASSWORD}).status_code == 200
            config = stranger.get("/config")
            assert config.status_code == 200
            assert PASSWORD not in json.dumps(config.json())
        with pytest.raises(Exception, match=r"auth|login|401"):
            Client(url, verbose=False, analytics_enabled=False)
        client = Client(url, auth=("asha", PASSWORD), verbose=False, analytics_enabled=False)
        assert generate(client, "a", MESSAGES)[-1]["text"] == "Hello, world."
        client.close()
    assert PASSWORD not in caplog.text

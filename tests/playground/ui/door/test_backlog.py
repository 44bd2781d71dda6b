"""What is kept for pages that do not listen: a bounded number of events, for a while; and nothing is lost to others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import gradio as gr
import httpx
import pytest
from fakes import FakePool, Script, spec
from raw_page import PageMap, RawSession, until
from serving import serving_page

from model_registry.registry import Registry
from playground.limits import Limits
from playground.ui.door import backlog

MOST = 4
LONG = Script(["word "] * 20, pause_s=0.05)


@pytest.fixture
def page() -> Iterator[gr.Blocks]:
    pool = FakePool(Registry([spec("a"), spec("slow")]), {"slow": LONG})
    with serving_page(pool, ["a", "slow"], limits=Limits(events_per_session=MOST), proxies=1) as page:
        yield page


@pytest.fixture
async def http(page: gr.Blocks) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=str(page.local_url), timeout=60)


async def join(http: httpx.AsyncClient, found: PageMap, session: RawSession) -> httpx.Response:
    """A stream that was never asked for: it ends at once, and nobody listens."""
    event = found.streams[0]
    body = {"fn_index": event["id"], "data": found.inputs(event), "session_hash": session.hash}
    return await http.post("/gradio_api/queue/join", json=body)


async def come_by(http: httpx.AsyncClient, seconds: float) -> None:
    """Whatever comes, it is looked who listens."""
    for _ in range(round(seconds / 0.02)):
        assert (await http.get("/gradio_api/app_id")).status_code == 200
        await asyncio.sleep(0.02)


async def test_who_never_listens_is_told_so_and_everybody_else_goes_on(http: httpx.AsyncClient) -> None:
    async with http:
        found = await PageMap.read(http)
        deaf, other = RawSession(http, found, "192.0.2.1"), RawSession(http, found, "192.0.2.1")
        answers = [await join(http, found, deaf) for _ in range(2 * MOST)]
        assert [answer.status_code for answer in answers] == [200] * MOST + [429] * MOST
        said = answers[-1].json()
        assert (
            said["detail"]
            == said["error"]
            == (f"This page has not heard the end of {MOST} things that it asked for: load it again.")
        )
        await deaf.stop()  # what is answered at once is kept for nobody
        for _ in range(MOST):
            assert await other.send("hello")
            assert [panel.is_over for panel in await other.follow(2)] == [True, True]


async def test_what_nobody_comes_to_read_is_dropped(
    page: gr.Blocks, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LOOK_S", 0.0)
    monkeypatch.setattr(backlog, "UNHEARD_S", 0.3)
    queue = page._queue
    async with http:
        found = await PageMap.read(http)
        deaf, listens = RawSession(http, found, "192.0.2.1"), RawSession(http, found, "192.0.2.2")
        assert (await join(http, found, deaf)).status_code == 200
        asked = await http.post("/gradio_api/call/models", json={"data": []})
        assert len(queue.pending_messages_per_session) == 2
        assert await listens.send("hello")
        answers = asyncio.create_task(listens.follow(2))  # for a second, as long as the slow model speaks
        await until(lambda: listens.hash in queue.pending_messages_per_session)
        await come_by(http, 0.6)
        assert {*queue.pending_messages_per_session} == {listens.hash}
        assert {*queue.pending_event_ids_session} == {listens.hash}
        assert [panel.answer for panel in await answers] == ["Hello, world.", "word " * 20]
        assert (await join(http, found, deaf)).status_code == 200, "whoever was forgotten may come again"
        gone = await http.get(f"/gradio_api/call/models/{asked.json()['event_id']}")
        assert gone.status_code == 404
        assert "nobody came for it within a minute" in gone.json()["detail"]


async def test_events_that_are_refused_keep_nothing_longer(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LOOK_S", 0.0)
    monkeypatch.setattr(backlog, "UNHEARD_S", 1.0)
    async with http:
        found = await PageMap.read(http)
        deaf = RawSession(http, found, "192.0.2.1")
        answers = [(await join(http, found, deaf)).status_code for _ in range(MOST + 1)]
        assert answers == [200] * MOST + [429]
        async with asyncio.timeout(10):
            while (await join(http, found, deaf)).status_code == 429:
                await asyncio.sleep(0.05)


async def test_programs_that_listen_get_what_they_asked_for(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LOOK_S", 0.0)
    monkeypatch.setattr(backlog, "UNHEARD_S", 0.3)
    async with http:
        arguments = ["slow", [{"role": "user", "content": "hi"}], None, None, 1.0, None, None]
        asked = await http.post("/gradio_api/call/generate", json={"data": arguments})
        route = f"/gradio_api/call/generate/{asked.json()['event_id']}"
        others = asyncio.create_task(come_by(http, 2.0))
        answer = await http.get(route)
        assert "event: complete" in answer.text.splitlines()
        await others

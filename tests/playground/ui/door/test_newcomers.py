"""New pages of one address: so many a minute, so that nobody pushes the conversations of others out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from fakes import FakePool, spec
from gradio_client import Client
from raw_page import PageMap, RawSession
from serving import serving, serving_page

from model_registry.registry import Registry
from playground.limits import Limits

MOST = 4
ADDRESS = {"x-forwarded-for": "192.0.2.66"}
SAID = "Too many new pages from your address: wait "


@pytest.fixture
def site() -> Iterator[str]:
    limits = Limits(sessions=5, new_sessions_per_minute=MOST)
    with serving(FakePool(Registry([spec("a"), spec("b")])), ["a", "b"], limits=limits, proxies=1) as url:
        yield url


async def test_nobody_pushes_another_conversation_out_with_sessions_that_are_made_up(site: str) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        page = await PageMap.read(http)
        victim = RawSession(http, page, "192.0.2.1")
        await victim.open()
        assert await victim.send("remember me")
        await victim.follow()
        event = {"data": page.inputs(page.load), "fn_index": page.load["id"]}
        answers = [
            await http.post(
                f"/gradio_api/{route}", json={**event, "session_hash": f"{route[:3]}-{number}"}, headers=ADDRESS
            )
            for number in range(5)
            for route in ("run/predict", "queue/join", "api/predict")
        ]
        assert [answer.status_code for answer in answers[MOST:]] == [429] * (15 - MOST)
        assert answers[-1].json()["detail"].startswith(SAID)
        assert await victim.send("and now?")
        left, _right = await victim.follow()
        assert "remember me" in left.text


async def test_a_page_that_is_open_is_not_counted_again(site: str) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        page = await PageMap.read(http)
        visitor = RawSession(http, page, "192.0.2.1")
        for number in range(2 * MOST):
            assert await visitor.send(f"prompt {number}")
            await visitor.follow()


async def test_events_of_programs_that_name_no_session_are_one_each(site: str) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        asked = [
            await http.post("/gradio_api/call/models", json={"data": []}, headers=ADDRESS) for _ in range(MOST + 1)
        ]
        assert [answer.status_code for answer in asked] == [200] * MOST + [429]
        other = await http.post("/gradio_api/call/models", json={"data": []}, headers={"x-forwarded-for": "192.0.2.7"})
        assert other.status_code == 200


def test_a_client_is_one_session_however_much_it_asks(site: str) -> None:
    client = Client(site, verbose=False, analytics_enabled=False)
    for _ in range(2 * MOST):
        assert client.predict("a", "x", api_name="/tokenize")["text"] == "x"
    client.close()


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"session_hash": 3}', b"[" * 100_000])
async def test_what_is_no_event_is_left_to_gradio(site: str, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=site, timeout=60) as http:
        answer = await http.post("/gradio_api/run/predict", content=body, headers=ADDRESS)
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize("limits", [Limits(), Limits(sessions=5)])
@pytest.mark.parametrize("route", ["queue/join", "call/models", "run/predict"])
async def test_a_session_with_no_name_or_one_of_any_length_is_refused_and_everybody_else_goes_on(
    limits: Limits, route: str
) -> None:
    """Gradio files events under an empty name where it does not find them again, and then answers nobody any more."""
    with serving_page(FakePool(Registry([spec("a")])), ["a"], limits=limits) as page:
        async with httpx.AsyncClient(base_url=str(page.local_url), timeout=60) as http:
            found = await PageMap.read(http)
            event = {"data": found.inputs(found.streams[0]), "fn_index": found.streams[0]["id"]}
            for name in ("", " ", "x" * 65, "a\nb"):
                asked = [http.post(f"/gradio_api/{route}", json={**event, "session_hash": name}) for _ in range(5)]
                for answer in await asyncio.gather(*asked):
                    assert answer.status_code == 400
                    assert answer.json()["detail"].startswith("session_hash: 1 to 64 letters")
            assert not page._queue.stopped
            visitor = RawSession(http, found, "192.0.2.1")
            assert await visitor.send("hello")
            assert [panel.answer for panel in await visitor.follow(1)] == ["Hello, world."]

"""A key goes with the page that it was typed into, and not with a connection that broke for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
import httpx
import pytest
from fakes import FakePool, spec
from pydantic import SecretStr
from raw_page import PageMap, RawSession, until
from serving import serving_page

from model_registry.registry import Registry
from playground.types import EndpointUse, GenerationRequest, Message
from playground.ui.door import leaving
from playground.ui.elsewhere.place import ANOTHER, KeptKey, PanelPlace
from playground.ui.state import PanelState

KEY = "sk-of-a-closed-page-1729"
URL = "http://10.0.0.7:8000/v1"
ENDPOINT = EndpointUse(url=URL, model="far", key=SecretStr(KEY))
ASKED = GenerationRequest(model_id="a", endpoint=ENDPOINT, messages=(Message(role="user", content="hi"),))


@pytest.fixture(scope="module")
def page() -> Iterator[gr.Blocks]:
    with serving_page(FakePool(Registry([spec("a")])), ["a"]) as page:
        yield page


@pytest.fixture
def grace(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(leaving, "GRACE_S", 0.3)
    return 0.3


@asynccontextmanager
async def held(http: httpx.AsyncClient, session: RawSession) -> AsyncIterator[None]:
    async with http.stream("GET", f"/gradio_api/heartbeat/{session.hash}") as beat:
        lines = beat.aiter_lines()
        await anext(lines)
        yield


def with_keys(page: gr.Blocks, session: RawSession) -> Any:
    """What Gradio holds of a page that was shut while a server answered, the key typed a second time."""
    kept = page.app.state_holder.session_data[session.hash]
    values = [KeptKey(URL, SecretStr(KEY)), PanelPlace("a", ANOTHER, ENDPOINT), PanelState().submit(ASKED)]
    states = {place: block.value for place, block in page.blocks.items() if isinstance(block, gr.State)}
    for value, kind in zip(values, (type(None), PanelPlace, PanelState), strict=True):
        kept[next(place for place, first in states.items() if isinstance(first, kind))] = value
    field = next(part for part in kept.components if part["props"].get("label") == "Key")
    field["props"]["value"] = KEY
    return kept


def keys(kept: Any) -> list[str]:
    """Every key that is in there, wherever the page keeps one."""
    values = list(kept.state_data.values())
    found = [value.secret for value in values if isinstance(value, KeptKey)]
    uses = [value.endpoint for value in values if isinstance(value, PanelPlace)]
    uses += [turn.request.endpoint for value in values if isinstance(value, PanelState) for turn in value.turns]
    found += [use.key for use in uses if use]
    typed = [KEY for part in kept.components if KEY in str(part)]
    return typed + [key.get_secret_value() for key in found if key.get_secret_value()]


async def opened(http: httpx.AsyncClient) -> RawSession:
    session = RawSession(http, await PageMap.read(http), "192.0.2.1")
    assert await session.send("hello")
    await session.follow(1)
    return session


async def test_a_closed_page_leaves_no_key_and_its_conversation_stays(page: gr.Blocks, grace: float) -> None:
    async with httpx.AsyncClient(base_url=page.local_url, timeout=60) as http:
        session = await opened(http)
        async with held(http, session):
            kept = with_keys(page, session)
            assert keys(kept) == [KEY] * 4
        await until(lambda: not keys(kept))
        panels = [value for value in kept.state_data.values() if isinstance(value, PanelState) and value.turns]
        assert panels
        assert not any(panel.is_busy for panel in panels)


async def test_nothing_is_kept_of_a_page_that_sent_nothing_for_long(
    page: gr.Blocks, grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "KEPT_S", 2.0)
    holder = page.app.state_holder
    async with httpx.AsyncClient(base_url=page.local_url, timeout=60) as http:
        left, cut_off = await opened(http), await opened(http)
        async with held(http, left), held(http, cut_off):
            pass
        for _ in range(4):  # no browser takes a broken connection up again, but its page goes on
            await asyncio.sleep(1.0)
            await cut_off.open()
        assert left.hash not in holder
        assert left.hash not in holder.time_last_used
        assert cut_off.hash in holder
        await until(lambda: cut_off.hash not in holder)


async def test_a_page_that_comes_back_at_once_keeps_its_key(page: gr.Blocks, grace: float) -> None:
    async with httpx.AsyncClient(base_url=page.local_url, timeout=60) as http:
        session = await opened(http)
        async with held(http, session):
            kept = with_keys(page, session)
        async with held(http, session):
            await asyncio.sleep(3 * grace)
            assert keys(kept) == [KEY] * 4
        await until(lambda: not keys(kept))


async def test_who_holds_a_connection_under_a_made_up_name_makes_no_session(page: gr.Blocks, grace: float) -> None:
    async with httpx.AsyncClient(base_url=page.local_url, timeout=60) as http:
        session = RawSession(http, await PageMap.read(http), "192.0.2.1")
        async with held(http, session):
            pass
        await asyncio.sleep(2 * grace)
    assert session.hash not in page.app.state_holder

"""What a visitor may send to the box "Runs on", and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_server import FakeServer, fake_server
from place_chooser import Chooser
from server_entries import lists

from playground.limits import Limits


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server(lists("kullm3", "kullm3-formal")) as running:
        yield running


async def test_servers_are_asked_as_often_as_a_visitor_may_ask_for_answers(server: FakeServer) -> None:
    panel = Chooser(limits=Limits(asks_per_minute=2))
    await panel.list_models(server.url)
    await panel.use(server.url)
    (refused,) = await panel.list_models(server.url)
    assert "You are asking faster than 2 prompts a minute" in refused["notice"]
    assert "Prompts go to" in refused["notice"]
    assert len(server.asked) == 2


@pytest.mark.parametrize("named", [{"url": "http://h/" + "x" * 4_000}, {"key": "k" * 4_001}, {"model": "m" * 4_001}])
async def test_nothing_longer_than_an_address_can_be_is_taken(server: FakeServer, named: dict[str, str]) -> None:
    (refused,) = await Chooser().use(**{"url": server.url, **named})
    assert "at most 4,000 characters may be sent" in refused["notice"]
    assert server.asked == []

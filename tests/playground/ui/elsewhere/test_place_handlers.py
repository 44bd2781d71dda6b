"""The box "Runs on", as its handlers have it: what is in use stays so until the next place has answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from desk import asked_from
from fake_server import Asked, FakeServer, Reply, Stream, fake_server, refuses
from fakes import Script
from place_chooser import Chooser
from pydantic import SecretStr
from server_entries import lists, server_entry

from playground.types import EndpointUse
from playground.ui.elsewhere.place import ANOTHER, THIS_MACHINE, PanelPlace

KEY = "sk-tell-nobody-0815"
FAR = "http://10.0.0.7:8000/v1"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server(lists("kullm3", "kullm3-formal")) as running:
        yield running


async def test_a_server_of_the_catalog_is_the_place_from_the_start_and_this_machine_can_be_chosen() -> None:
    chooser = Chooser(servers=[server_entry(FAR, "a")])
    assert chooser.place.endpoint == EndpointUse(url=FAR, model="base")
    assert chooser.place.words == "FAR · 10.0.0.7:8000"
    painted = await chooser.choose(THIS_MACHINE)
    assert chooser.place == PanelPlace("a")
    assert painted["box"]["label"] == "Runs on this machine"
    assert not painted["served"]["visible"]
    painted = await chooser.choose("far")
    assert painted["box"]["label"] == "Runs on FAR · 10.0.0.7:8000"
    assert painted["served"]["choices"] == ["base", "formal"]
    assert painted["served"]["visible"]
    assert not painted["fields"].visible


async def test_its_adapters_are_models_there() -> None:
    chooser = Chooser(servers=[server_entry(FAR, "a")])
    await chooser.choose_served("formal")
    assert chooser.place.endpoint == EndpointUse(url=FAR, model="formal")
    painted = await chooser.choose_served("sold elsewhere")
    assert "FAR has no model" in painted["notice"]
    assert chooser.place.endpoint == EndpointUse(url=FAR, model="formal")


async def test_a_machine_that_is_too_small_is_no_place_where_a_server_has_the_model() -> None:
    small = Script(state="too_large", detail="needs 21.5 GB")
    chooser = Chooser(servers=[server_entry(FAR, "a")], any_endpoint=False, a=small, b=small)
    painted = await chooser.choose(THIS_MACHINE)
    assert "This machine cannot hold a: choose a server." in painted["notice"]
    assert painted["where"]["value"] == "far"
    assert chooser.place.endpoint is not None
    assert (await chooser.choose("far"))["where"]["choices"] == [("FAR · 10.0.0.7:8000", "far")]


async def test_a_key_that_is_not_set_is_told_where_its_server_is_chosen() -> None:
    chooser = Chooser(servers=[server_entry(FAR, "a", key="KEY_THAT_NOBODY_SETS")])
    assert "KEY_THAT_NOBODY_SETS is not set" in (await chooser.choose("far"))["notice"]


async def test_another_server_is_in_use_once_it_has_answered(server: FakeServer) -> None:
    chooser = Chooser()
    opened = await chooser.choose(ANOTHER)
    assert opened["fields"].visible
    assert chooser.place == PanelPlace("a"), "what was in use stays so"
    asking, done = await chooser.use(f" {server.url}/ ", key=f" {KEY} ")
    assert asking["key"] == "", "emptied at once"
    assert "state" not in asking
    assert f"Asking {server.host} …" in asking["notice"]
    assert chooser.place.endpoint == EndpointUse(url=server.url, model="kullm3", key=SecretStr(KEY))
    assert done["box"]["label"] == f"Runs on {server.host} · kullm3"
    assert "In use: prompts go to" in done["notice"]
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {KEY}"]
    assert KEY not in repr([asking, done, chooser.spot]), "not by accident either"


async def test_a_model_that_the_server_does_not_list_is_taken_with_a_note(server: FakeServer) -> None:
    chooser = Chooser()
    *_, done = await chooser.use(server.url, "mine", same_model=False)
    assert "lists kullm3, kullm3-formal. Whether it has mine shows with the first prompt." in done["notice"]
    assert chooser.place.endpoint == EndpointUse(url=server.url, model="mine", messages_only=True)
    server.answer = refuses(404)
    *_, done = await chooser.use(server.url, "mine")
    assert f"{server.host} lists no models. Whether it has mine shows" in done["notice"]


async def test_list_models_fills_the_menu_and_takes_the_key(server: FakeServer) -> None:
    chooser = Chooser()
    asking, done = await chooser.list_models(server.url, KEY)
    assert asking["key"] == ""
    assert f"Key is set for {server.host}" in asking["key_said"]
    assert asking["key_row"].visible
    assert done["model"] == {**done["model"], "choices": ["kullm3", "kullm3-formal"], "value": "kullm3"}
    *_, done = await chooser.list_models(server.url, model="typed")
    assert done["model"]["value"] == "typed", "what the user typed stays"
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {KEY}"] * 2
    server.answer = lists()
    *_, done = await chooser.list_models(server.url)
    assert "lists no models: type what it calls" in done["notice"]


async def test_a_key_goes_to_the_server_that_it_was_given_for_alone(server: FakeServer) -> None:
    chooser = Chooser()
    await chooser.use(server.url, key=KEY)
    with fake_server(lists("kullm3")) as other:
        await chooser.use(other.url)
        assert [asked.headers.get("authorization") for asked in other.asked] != [f"Bearer {KEY}"]
        assert chooser.place.endpoint == EndpointUse(url=other.url, model="kullm3")
    await chooser.use(server.url.replace("/v1", "/v2"), "kullm3")
    assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}", "the same server at another path"


async def test_forget_forgets_the_key_where_it_is_kept_and_where_it_is_used(server: FakeServer) -> None:
    chooser = Chooser()
    await chooser.use(server.url, key=KEY)
    painted = chooser.put(await chooser.own.forget(*chooser.spot))
    assert not painted["key_row"].visible
    assert chooser.kept is None
    assert chooser.place.endpoint == EndpointUse(url=server.url, model="kullm3")
    await chooser.use(server.url)
    assert KEY not in server.asked[-1].headers["authorization"]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "key"), (500, "500"), (429, "no more requests")], ids=["key", "broken", "busy"]
)
async def test_what_the_server_refuses_is_a_sentence_and_nothing_is_lost(
    server: FakeServer, status: int, words: str
) -> None:
    chooser = Chooser()
    await chooser.use(server.url, key=KEY)
    before = chooser.place
    server.answer = refuses(status, f"no {KEY}")
    *_, done = await chooser.use(server.url, "other")
    assert words in done["notice"]
    assert KEY not in done["notice"]
    assert f"Prompts go to {server.host} · kullm3, as before." in done["notice"]
    assert set(done) == {"notice"}
    assert chooser.place == before


async def test_nobody_listens_is_a_sentence() -> None:
    with fake_server(lists()) as server:
        url = server.url
    *_, done = await Chooser().use(url)
    assert 'class="error-box"' in done["notice"]


async def test_an_empty_model_or_address_is_a_sentence(server: FakeServer) -> None:
    chooser = Chooser()
    *_, done = await chooser.use(server.url, None)
    assert "List models asks it" in done["notice"]
    *_, done = await chooser.use(None)
    assert "http://127.0.0.1:8000/v1" in done["notice"]
    assert server.asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1", "http://169.254.169.254/v1", FAR, {"a": 1}, 7, None])
async def test_a_made_up_event_names_no_server_that_is_not_listed(server: FakeServer, url: Any) -> None:
    """Whatever the components allow, the browser says what it likes."""
    chooser = Chooser(servers=[server_entry(FAR, "b")], endpoints=["http://10.0.0.8/v1"], any_endpoint=False)
    url = url.format(port=server.port) if isinstance(url, str) else url
    for paints in (await chooser.use(url, key=KEY), await chooser.list_models(url, KEY)):
        (only,) = paints
        assert 'class="error-box"' in only["notice"]
        assert set(only) == {"notice"}
    assert server.asked == []
    assert (chooser.place, chooser.kept) == (PanelPlace("a"), None)


@pytest.mark.parametrize("value", ["far", ANOTHER, "", None, 3, ["far"]])
async def test_a_made_up_place_is_none(value: Any) -> None:
    chooser = Chooser(servers=[server_entry(FAR, "b")], any_endpoint=False)
    painted = await chooser.choose(value)
    assert 'class="error-box"' in painted["notice"]
    assert chooser.place == PanelPlace("a")


async def test_another_model_has_its_own_place() -> None:
    chooser = Chooser(servers=[server_entry(FAR, "b")])
    assert chooser.put(await chooser.own.follow(*chooser.spot)) == {}
    chooser.model_id = "b"
    painted = chooser.put(await chooser.own.follow(*chooser.spot))
    assert chooser.place.endpoint == EndpointUse(url=FAR, model="base")
    assert painted["where"]["choices"] == [
        ("This machine", THIS_MACHINE),
        ("FAR · 10.0.0.7:8000", "far"),
        ("Another server …", ANOTHER),
    ]


async def test_of_two_choices_the_later_one_counts() -> None:
    held = threading.Event()

    def slow(asked: Asked) -> Reply | Stream:
        held.wait(20)
        return Reply(200, {"data": []})

    with fake_server(slow) as server:
        chooser = Chooser()
        stream = chooser.own.use_named(asked_from("192.0.2.1"), server.url, "", "m", True, *chooser.spot)
        chooser.put(await anext(stream))
        late = asyncio.ensure_future(anext(stream))
        await chooser.choose(THIS_MACHINE)
        held.set()
        assert chooser.put(await late) == {}
        assert chooser.place == PanelPlace("a")


async def test_what_goes_wrong_otherwise_is_told_without_its_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chooser = Chooser()

    async def breaks(url: str, key: SecretStr) -> tuple[str, ...]:
        raise RuntimeError(f"a secret: {key.get_secret_value()}")

    monkeypatch.setattr(chooser.pool.elsewhere, "models", breaks)
    *_, done = await chooser.use(FAR, key=KEY)
    assert "Unexpected error while asking the server" in done["notice"]
    assert "secret" not in done["notice"]
    assert "RuntimeError" in caplog.text
    assert KEY not in caplog.text

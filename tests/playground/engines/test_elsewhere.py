"""Requests that name a server: they go there and nowhere else, with a key that is given out for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fake_server import STALL, FakeServer, fake_server, refuses, streams
from pydantic import SecretStr
from server_entries import catalog_with, lists, server_entry

from playground.engines.elsewhere import Elsewhere
from playground.engines.pool import EnginePool
from playground.errors import EngineClosedError, EngineError
from playground.placement.plan import Device
from playground.types import (
    AdapterUse,
    EndpointUse,
    GenerationChunk,
    GenerationRequest,
    Message,
    SamplingParams,
    address_of,
)

KEY = "sk-of-the-operator-4711"
MODEL = "demo-kullm3"
PATIENCE_S = 20


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server(lists("base", "formal", "other")) as running:
        yield running


def never(*_: Any) -> Any:
    raise AssertionError("nothing is to be loaded here")


@asynccontextmanager
async def pool_of(elsewhere: Elsewhere) -> AsyncIterator[EnginePool]:
    """A pool on a machine on which nothing may be loaded."""
    device = Device("cpu", "cpu", 16 * 10**9, 16 * 10**9)
    pool = EnginePool(elsewhere._registry, [device], start=never, elsewhere=elsewhere)
    try:
        yield pool
    finally:
        await pool.close()


def elsewhere_for(server: FakeServer, environment: Mapping[str, str] | None = None, **facts: Any) -> Elsewhere:
    """With FAR in the catalog, whose key is in FAR_KEY."""
    known = {name: SecretStr(value) for name, value in (environment or {"FAR_KEY": KEY}).items()}
    return Elsewhere(catalog_with(server_entry(server.url, key="FAR_KEY", **facts)), secret=known.get)


def request(endpoint: EndpointUse | None, **more: Any) -> GenerationRequest:
    messages = (Message(role="user", content="안녕하세요"),)
    return GenerationRequest(
        model_id=MODEL, endpoint=endpoint, messages=messages, sampling=SamplingParams(temperature=0), **more
    )


async def said(pool: EnginePool, asked: GenerationRequest) -> str:
    async with asyncio.timeout(PATIENCE_S):
        events = [event async for event in pool.stream(asked)]
    assert all(isinstance(event, GenerationChunk) for event in events)
    return "".join(event.delta for event in events if isinstance(event, GenerationChunk))


async def test_a_request_that_names_a_server_is_answered_there_and_takes_no_place_here(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server)
    async with pool_of(elsewhere) as pool:
        asked = request(elsewhere.use(MODEL, "far"))
        pool.expect([asked])
        assert await said(pool, asked) == "far away"
        assert pool.status(MODEL).state == "local"
        assert [report.engines for report in pool.memory()] == [()]
    (body,) = server.bodies()
    assert body["model"] == "base"
    assert body["prompt"], "the ids of the model's own tokenizer"


async def test_the_key_is_read_when_the_server_is_asked_and_is_in_no_request(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server)
    use = elsewhere.use(MODEL, "far", "formal")
    assert use == EndpointUse(url=server.url, model="formal")
    async with pool_of(elsewhere) as pool:
        await said(pool, request(use))
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {KEY}"]


async def test_the_operators_key_pays_for_no_model_but_those_of_the_catalog(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server)
    async with pool_of(elsewhere) as pool:
        await said(pool, request(EndpointUse(url=server.url, model="other")))
        await said(pool, request(EndpointUse(url=server.url, model="base", key=SecretStr("sk-mine"))))
    sent = [asked.headers.get("authorization", "") for asked in server.asked]
    assert not any(KEY in header for header in sent)
    assert sent[-1] == "Bearer sk-mine"


async def test_a_key_that_is_not_set_is_named_and_nothing_is_sent(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server, {"OTHER": "x"})
    assert elsewhere.servers_of(MODEL)[0].missing_key == "FAR_KEY"
    async with pool_of(elsewhere) as pool:
        with pytest.raises(EngineError, match="FAR wants a key, and FAR_KEY is not set"):
            await said(pool, request(elsewhere.use(MODEL, "far")))
    assert server.asked == []


async def test_an_adapter_of_this_machine_is_refused_on_a_server(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server)
    async with pool_of(elsewhere) as pool:
        with pytest.raises(EngineError, match="choose a model of the server's"):
            await said(pool, request(elsewhere.use(MODEL, "far"), adapter=AdapterUse(id="a", revision="1")))
    assert server.asked == []


async def test_its_probabilities_are_not_asked_for_afterwards(server: FakeServer) -> None:
    elsewhere = elsewhere_for(server)
    async with pool_of(elsewhere) as pool:
        with pytest.raises(EngineError, match=f"{server.host} gave this answer"):
            await pool.score(request(elsewhere.use(MODEL, "far")), [1, 2])


async def begun(pool: EnginePool, asked: GenerationRequest) -> tuple[Any, GenerationChunk]:
    """The stream and its first chunk with text."""
    stream = pool.stream(asked)
    async with asyncio.timeout(PATIENCE_S):
        while not (chunk := await anext(stream)).delta:  # type: ignore[union-attr]
            pass
    assert isinstance(chunk, GenerationChunk)
    return stream, chunk


async def test_abort_and_close_reach_it() -> None:
    with fake_server(streams(("one ",), ("two ",), STALL)) as server:
        elsewhere = elsewhere_for(server)
        async with pool_of(elsewhere) as pool:
            asked = request(elsewhere.use(MODEL, "far"))
            stream, _ = await begun(pool, asked)
            await pool.abort(asked.request_id)
            async with asyncio.timeout(PATIENCE_S):
                *_, last = [chunk async for chunk in stream]
            assert last.finish_reason == "abort"
            assert await asyncio.to_thread(server.gone.wait, PATIENCE_S)
            other, _ = await begun(pool, request(elsewhere.use(MODEL, "far")))
            await pool.close()
            with pytest.raises(EngineClosedError):
                async with asyncio.timeout(PATIENCE_S):
                    [chunk async for chunk in other]
            with pytest.raises(EngineClosedError):
                await said(pool, request(elsewhere.use(MODEL, "far")))


async def test_how_a_server_is_given_prompts_is_known_once_it_has_answered_until_its_models_are_listed(
    server: FakeServer,
) -> None:
    elsewhere = Elsewhere(catalog_with(), any_endpoint=True)
    use = elsewhere.named(server.url, "base")
    assert elsewhere.sent_as(use) is None
    async with pool_of(elsewhere) as pool:
        await said(pool, request(use))
        assert elsewhere.sent_as(use) == "token_ids"
        assert elsewhere.sent_as(elsewhere.named(server.url, "other")) is None
        assert elsewhere.sent_as(elsewhere.named(server.url, "other", messages_only=True)) == "messages"
        assert await elsewhere.models(server.url) == ("base", "formal", "other")
    assert elsewhere.sent_as(use) is None


def test_servers_of_the_catalog_are_known_without_their_keys() -> None:
    elsewhere = Elsewhere(catalog_with(server_entry("http://10.0.0.7:8000/v1/", key="FAR_KEY")), secret={}.get)
    (far,) = elsewhere.servers_of(MODEL)
    assert (far.id, far.label, far.models) == ("far", "FAR · 10.0.0.7:8000", ("base", "formal"))
    assert elsewhere.servers_of("demo-krutrim") == ()
    assert elsewhere.use(MODEL, "FAR").url == "http://10.0.0.7:8000/v1"


@pytest.mark.parametrize(
    ("model_id", "server_id", "model", "words"),
    [
        ("demo-krutrim", "far", "", "FAR does not serve"),
        (MODEL, "fra", "", "Did you mean far?"),
        (MODEL, "far", "other", "FAR has no model 'other'. There are: base, formal."),
    ],
)
def test_what_the_catalog_does_not_say_is_refused(model_id: str, server_id: str, model: str, words: str) -> None:
    elsewhere = Elsewhere(catalog_with(server_entry("http://10.0.0.7:8000/v1")))
    with pytest.raises(EngineError) as caught:
        elsewhere.use(model_id, server_id, model)
    assert words in str(caught.value)


LISTED = "http://10.0.0.8/v1"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.9/v1",
        "http://10.0.0.7:8000/v1",  # of the catalog: for what the catalog says of it alone
        "http://10.0.0.8:81/v1",
        "https://10.0.0.8/v1",
        "http://10.0.0.8/v2",
        "http://10.0.0.8@evil.test/v1",
        "file:///etc/passwd",
        "http://10.0.0.8/v1?x=1",
        "",
        "half \ud83d",
    ],
)
async def test_where_servers_are_listed_a_user_may_name_no_other(url: str) -> None:
    elsewhere = Elsewhere(catalog_with(server_entry("http://10.0.0.7:8000/v1")), [LISTED])
    assert elsewhere.may_be_named
    assert elsewhere.named(f"{LISTED}/", "m").url == LISTED
    with pytest.raises(EngineError):
        elsewhere.named(url, "m")
    with pytest.raises(EngineError):
        await elsewhere.models(url)


def test_where_none_is_listed_none_may_be_named() -> None:
    elsewhere = Elsewhere(catalog_with())
    assert not elsewhere.may_be_named
    with pytest.raises(EngineError, match="--endpoint"):
        elsewhere.named("http://127.0.0.1:8000/v1", "m")


@pytest.mark.parametrize(("model", "key"), [(" ", ""), ("half \ud83d", ""), ("m", "half \ud83d")])
def test_a_name_or_a_key_that_cannot_be_sent_is_refused(model: str, key: str) -> None:
    with pytest.raises((EngineError, ValueError)):
        Elsewhere(catalog_with(), any_endpoint=True).named(LISTED, model, SecretStr(key))


async def test_a_server_that_does_not_answer_is_a_sentence(server: FakeServer) -> None:
    elsewhere = Elsewhere(catalog_with(), any_endpoint=True)
    server.answer = refuses(401, {"error": f"bad key {KEY}"})
    with pytest.raises(EngineError) as caught:
        await elsewhere.models(server.url, SecretStr(KEY))
    assert KEY not in str(caught.value)
    server.answer = refuses(404)
    assert await elsewhere.models(server.url) == (), "many have no such list"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://10.0.0.7:8000/v1", "10.0.0.7:8000"),
        ("https://api.example.org/v1", "api.example.org"),
        ("http://[::1]:8000/v1", "[::1]:8000"),
        ("http://user:secret@host/v1", "host"),
    ],
)
def test_an_address_is_host_and_port(url: str, words: str) -> None:
    assert address_of(url) == words

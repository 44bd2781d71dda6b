"""Servers through the endpoints: chosen by the catalog's ids; no address goes in, none comes out, and no key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from endpoint_client import generate
from fakes import FakePool, Script, spec
from gradio_client import Client
from server_entries import server_entry
from serving import serving

from model_registry.registry import Registry
from playground.types import EndpointUse

FAR = "http://10.0.0.7:8000/v1"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def pool() -> FakePool:
    servers = [server_entry(FAR, "far-model"), server_entry("http://10.0.0.8/v1", "far-model", "other")]
    return FakePool(Registry([spec("far-model"), spec("near-model")], servers=servers), {"far-model": Script(["hi"])})


@pytest.fixture(scope="module")
def client(pool: FakePool) -> Iterator[Client]:
    with serving(pool, ["far-model", "near-model"]) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        yield client
        client.close()


def endpoint_of_last(pool: FakePool) -> EndpointUse | None:
    return pool.requests[-1].endpoint


def test_models_tells_the_servers_of_each_by_id_and_name(client: Client) -> None:
    far, near = client.predict(api_name="/models")
    assert far["servers"] == [
        {"id": "far", "name": "FAR", "models": ["base", "formal"]},
        {"id": "other", "name": "OTHER", "models": ["base", "formal"]},
    ]
    assert near["servers"] == []
    assert "10.0.0" not in json.dumps([far, near])


def test_the_page_itself_tells_the_addresses_as_the_docs_say(client: Client) -> None:
    assert "10.0.0.7:8000" in json.dumps(client.config)


def test_a_model_is_answered_by_its_first_server_unless_another_place_is_named(client: Client, pool: FakePool) -> None:
    *_, last = generate(client, "far-model", MESSAGES)
    assert endpoint_of_last(pool) == EndpointUse(url=FAR, model="base")
    assert last["server"] == {"id": "far", "model": "base"}
    assert last["sent_as"] == "token_ids"
    assert last["scores"] == []
    assert "10.0.0" not in json.dumps(last)
    *_, last = generate(client, "far-model", MESSAGES, server="OTHER", adapter="formal")
    assert endpoint_of_last(pool) == EndpointUse(url="http://10.0.0.8/v1", model="formal")
    assert last["server"] == {"id": "other", "model": "formal"}
    for here in ("", "this machine"):
        *_, last = generate(client, "far-model", MESSAGES, server=here)
        assert endpoint_of_last(pool) is None
        assert (last["server"], last["sent_as"]) == (None, None)
    generate(client, "near-model", MESSAGES)
    assert endpoint_of_last(pool) is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"server": "http://10.0.0.7:8000/v1"}, "There is no server"),
        ({"server": {"url": FAR}}, "server"),
        ({"server": "far", "adapter": "o/name"}, 'An adapter of this machine needs server="this machine"'),
        ({"adapter": "o/name"}, "FAR has no model 'o/name'"),
        ({"server": "far", "adapter_scale": 0.5}, "a server takes no scale"),
    ],
)
def test_what_no_server_of_the_catalog_offers_is_a_sentence(
    client: Client, pool: FakePool, asked: dict[str, Any], words: str
) -> None:
    before = len(pool.requests)
    with pytest.raises(Exception, match="(?s)" + words.replace("(", "\\(")):
        generate(client, "far-model", MESSAGES, **asked)
    assert len(pool.requests) == before


def test_a_server_does_not_serve_another_model(client: Client) -> None:
    with pytest.raises(Exception, match="FAR does not serve NEAR-MODEL"):
        generate(client, "near-model", MESSAGES, server="far")

"""A page for this machine alone answers to this machine's names: another's may lead here, and is refused."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from endpoint_client import generate
from fakes import FakePool, spec
from gradio_client import Client
from serving import serving

from model_registry.registry import Registry

MESSAGES = [{"role": "user", "content": "hi"}]


def site_with(**options: bool) -> Iterator[str]:
    with serving(FakePool(Registry([spec("a")])), ["a"], **options) as url:
        yield url


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    yield from site_with(own_names_only=True)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    yield from site_with(own_names_only=False)


STRANGE = ["evil.test", "evil.test:{port}", "localhost.evil.test", "127.0.0.1.evil.test", "[::1].evil.test", "[::2]:80"]
STRANGE += ["10.0.0.7:{port}", "", "evil.test:127.0.0.1", "localhost@evil.test"]


@pytest.mark.parametrize("name", STRANGE)
def test_a_request_by_anothers_name_is_refused_whatever_it_is_for(own: str, name: str) -> None:
    host = {"host": name.format(port=httpx.URL(own).port)}
    with httpx.Client(base_url=own, headers=host) as http:
        told = [http.get("/"), http.get("/config"), http.post("/gradio_api/run/predict", json={"data": []})]
        told += [http.get("/gradio_api/heartbeat/x"), http.options("/gradio_api/queue/join"), http.head("/")]
    assert [answer.status_code for answer in told] == [421] * len(told)
    assert "--proxies 1" in told[0].text


OWN = ["127.0.0.1", "127.0.0.1:{port}", "localhost:8080", "LocalHost", "[::1]:{port}", "[::1]"]


@pytest.mark.parametrize("name", OWN)
def test_its_own_names_are_taken_at_any_port(own: str, name: str) -> None:
    """Whoever forwards a port has another one at the other end."""
    assert httpx.get(f"{own}config", headers={"host": name.format(port=httpx.URL(own).port)}).status_code == 200


def test_programs_of_this_machine_work(own: str) -> None:
    client = Client(own, verbose=False, analytics_enabled=False)
    assert generate(client, "a", MESSAGES)[-1]["text"] == "Hello, world."
    client.close()


def test_a_page_behind_a_proxy_has_whatever_name_it_is_given(elsewhere: str) -> None:
    assert httpx.get(f"{elsewhere}config", headers={"host": "models.example.org"}).status_code == 200

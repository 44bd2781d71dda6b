"""Which servers may be asked, and how their addresses are read: nothing that could be another place slips through."""

from __future__ import annotations

import pytest

from playground.engines.remoting.policy import EndpointPolicy, base_url
from playground.errors import EngineError

SAME = {
    "http://host:8000/v1": "http://host:8000/v1",
    "http://host:8000/v1/": "http://host:8000/v1",
    "  http://host:8000/v1//  ": "http://host:8000/v1",
    "HTTP://HOST:8000/v1": "http://host:8000/v1",
    "http://host:80/v1": "http://host/v1",
    "https://host:443/v1": "https://host/v1",
    "https://host:80/v1": "https://host:80/v1",
    "http://host:8000": "http://host:8000/v1",
    "http://host:8000/": "http://host:8000/v1",
    "http://host/v1/chat/completions": "http://host/v1",
    "http://host/v1/completions/": "http://host/v1",
    "http://host/v1/models": "http://host/v1",
    "https://api.example/openai/V1beta": "https://api.example/openai/V1beta",
    "http://[::1]:8000/v1": "http://[::1]:8000/v1",
}
REFUSED = {
    "": "no server's address",
    "host:8000/v1": "no server's address",
    "//host/v1": "no server's address",
    "ftp://host/v1": "no server's address",
    "file:///etc/passwd": "no server's address",
    "http:///v1": "no server's address",
    "http://host:99999/v1": "no server's address",
    "http://host:x/v1": "no server's address",
    "http://[::1/v1": "no server's address",
    "http://user:secret@host/v1": "key in its own field",
    "http://secret@host/v1": "key in its own field",
    "http://host/v1?key=secret": "leave out",
    "http://host/v1#there": "leave out",
    "http://host/v 1": "leave out",
    "http://host/v1\r\nX: y": "leave out",
    "http://ho\x00st/v1": "leave out",
}


@pytest.mark.parametrize("typed", SAME)
def test_one_server_has_one_address(typed: str) -> None:
    assert base_url(typed) == SAME[typed]
    assert base_url(SAME[typed]) == SAME[typed]


@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_no_address_is_refused_and_no_secret_quoted(typed: str) -> None:
    with pytest.raises(EngineError, match=REFUSED[typed]) as refusal:
        EndpointPolicy(any_endpoint=True).require(typed)
    assert "secret" not in str(refusal.value)


def test_only_listed_servers_may_be_asked_however_they_are_spelled() -> None:
    policy = EndpointPolicy.of(["https://Listed.example/v1/", "http://127.0.0.1:8000"], any_endpoint=False)
    assert policy.require("https://listed.example:443/v1") == "https://listed.example/v1"
    assert policy.require("http://127.0.0.1:8000/v1") == "http://127.0.0.1:8000/v1"
    for other in (
        "https://listed.example/v2",
        "http://listed.example/v1",
        "https://listed.example:8443/v1",
        "https://listed.example.evil/v1",
        "https://evil.example/https://listed.example/v1",
        "https://listed.example/v1/../admin",
        "http://127.0.0.1:8001/v1",
        "http://127.1:8000/v1",
        "http://localhost:8000/v1",
        "http://169.254.169.254/v1",
    ):
        with pytest.raises(EngineError, match="--endpoint"):
            policy.require(other)


def test_any_server_may_be_asked_where_the_operator_allows_it() -> None:
    assert EndpointPolicy(any_endpoint=True).require("http://anywhere:1234") == "http://anywhere:1234/v1"


def test_a_policy_allows_nothing_unless_it_is_told() -> None:
    with pytest.raises(EngineError):
        EndpointPolicy().require("http://127.0.0.1:8000/v1")

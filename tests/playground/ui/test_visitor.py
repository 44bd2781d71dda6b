"""Who sends an event: the session, and the address that a client behind proxies cannot make up."""

from __future__ import annotations

import pytest
from desk import asked_from

from playground.admission.gate import Gate
from playground.ui.visitor import Entrance

PEER = "10.9.9.9"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, (), PEER),
        (0, ("1.2.3.4",), PEER),
        (1, (), PEER),
        (1, ("192.0.2.7",), "192.0.2.7"),
        (1, ("6.6.6.6, 192.0.2.7",), "192.0.2.7"),
        (1, ("6.6.6.6", "192.0.2.7"), "192.0.2.7"),
        (2, ("6.6.6.6, 192.0.2.7, 10.0.0.1",), "192.0.2.7"),
        (2, ("192.0.2.7",), PEER),
        (1, ("192.0.2.7:4711",), "192.0.2.7"),
        (1, ("[2001:db8::7]:4711",), "2001:db8::7"),
        (1, ("2001:db8::7",), "2001:db8::7"),
        (1, ("nonsense",), "nonsense"),
    ],
)
def test_only_what_our_own_proxies_say_is_believed(proxies: int, forwarded: tuple[str, ...], address: str) -> None:
    visitor = Entrance(Gate(), proxies).visitor(asked_from(PEER, "s", *forwarded))
    assert (visitor.session, visitor.address, visitor.user) == ("s", address, "")

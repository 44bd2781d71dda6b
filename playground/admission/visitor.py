"""Somebody who asks, as far as that can be known. A value; made by the page, counted by the gate."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

LONGEST_ADDRESS = 64
V6_PREFIX = 64
"""Bits that one household or machine has to itself; the others are its own to choose."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """
    session: one open page, or one client; "" if it says none. Clients make it up.
    address: where it connects from, as well as the proxies in front can tell.
    user: who logged in, "" where nobody has to.
    """

    session: str
    address: str
    user: str = ""

    @property
    def origin(self) -> tuple[str, str]:
        """What counts as one address: the user too, so that people behind one router who log in do not count as one,
        and an IPv6 address by its network."""
        return _network(self.address), self.user


def _network(address: str) -> str:
    try:
        known = ip_address(address)
    except ValueError:
        return address[:LONGEST_ADDRESS]
    if not isinstance(known, IPv6Address):
        return str(known)
    if known.ipv4_mapped:
        return str(known.ipv4_mapped)
    return str(ip_network((int(known), V6_PREFIX), strict=False))

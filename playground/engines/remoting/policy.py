"""Which servers may be asked: on a page that strangers can open, only those that the operator listed.

A url that anyone may type would let them reach whatever this machine can reach. Called before every request; asks no
network and no name server itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from playground.errors import EngineError

DEFAULT_PORTS = {"http": 80, "https": 443}
ROUTES = ("/chat/completions", "/completions", "/models")
EXAMPLE = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """
    listed: the servers' base urls that the operator named, as `base_url` writes them: `EndpointPolicy.of` takes any.
    any_endpoint: whether others may be asked too.
    """

    listed: frozenset[str] = frozenset()
    any_endpoint: bool = False

    @classmethod
    def of(cls, urls: Iterable[str], *, any_endpoint: bool) -> EndpointPolicy:
        """Of urls as people write them. Raises EngineError."""
        return cls(frozenset(base_url(url) for url in urls), any_endpoint)

    def require(self, url: str) -> str:
        """The url as `base_url` writes it.

        Raises:
            EngineError: it is no server's base url, or may not be asked; says what to do.
        """
        base = base_url(url)
        if not self.any_endpoint and base not in self.listed:
            raise EngineError(
                f"{base} is not among the servers of this page: choose one of the menu, or let whoever runs the "
                "page list it with --endpoint or a catalog file."
            )
        return base


def base_url(url: str) -> str:
    """One spelling for all that mean the same: no slash at the end, the host in lower case, no default port.

    A host alone means its /v1; one of the API's own addresses, such as .../chat/completions, means what it begins with.

    Raises:
        EngineError: it is no http or https url with a host, or carries more than a place: a user, a query.
    """
    text = url.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise EngineError(f"This is no server's address ({error}): write one such as {EXAMPLE}.") from error
    _require_plain(parts, text)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != DEFAULT_PORTS[scheme]:
        host = f"{host}:{port}"
    path = parts.path.rstrip("/")
    for route in ROUTES:
        path = path.removesuffix(route)
    return f"{scheme}://{host}{path or '/v1'}"


def _require_plain(parts: SplitResult, text: str) -> None:
    if "@" in parts.netloc:  # never quoted: what stands before it is a secret
        raise EngineError("A server's address must not hold a user or password: give the key in its own field.")
    if parts.scheme.lower() not in DEFAULT_PORTS or not parts.hostname:
        raise EngineError(f"{text[:200]!r} is no server's address: write one such as {EXAMPLE}.")
    if parts.query or parts.fragment or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise EngineError(f"A server's address ends with its path, such as {EXAMPLE}: leave out what follows it.")

"""One HTTP client for all that goes to servers elsewhere: no redirects, no token of this machine, bounded answers.

huggingface_hub makes its asynchronous clients with it too, so that its `AsyncInferenceClient` keeps the same rules; the
Hub's own downloads go through another client and know nothing of it. Knows no prompt. Called by `asking`.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_async_session, set_async_client_factory
from pydantic import SecretStr

from playground.errors import EngineError

LINE_LIMIT = 1_048_576
"""Bytes that one line of an answer may have."""
LIST_LIMIT = 16_777_216
"""Bytes that a list of models may have: gateways list hundreds, each with all that is known of it."""
REFUSAL_LIMIT = 65_536
"""Bytes that are read of an answer which is an error."""

NO_KEY = "-"
"""What a server that wants no key is told: huggingface_hub would send this machine's token where it is told nothing."""

AGENT = "krutrim-kullm3-playground"

SEPARATORS = {"\x85".encode(): b"\\u0085", "\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
"""Characters at which httpx2 ends a line though JSON may have them in a string, and how JSON spells them otherwise."""

REWRITTEN = {
    re.compile(rb"^data:[ \t]*(?=[\r\n]|\Z)", re.MULTILINE): b":",
    re.compile(rb"^error:[ \t]*(\{.*\})", re.MULTILINE): rb'data: {"error": \1}',
}
"""Lines of servers that take events less strictly: one without data is a comment, an error of llama.cpp is a chunk."""


class RefusedError(Exception):
    """A server answered with anything but success, or an error that it calls one; `text` is what was read of it."""

    def __init__(self, status: int, text: str, retry_after: str = "", location: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.retry_after = retry_after
        self.location = location


class GarbageError(Exception):
    """What a server sent is not what it said that it would send; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds.

    first_s: for the first token, from when the request is sent. between_s: for each that follows.
    tries: in all, where a server cannot be reached or is too busy; `backoff_s` after the first, twice that after the
        second. longest_wait_s: a server that asks for a longer pause is not waited for.
    last_s: for what may follow the reason why an answer is over.
    whole_s: for a whole answer, however steadily it comes; a long one has `a_token_s` for each token that it may have.
    """

    connect_s: float = 5.0
    first_s: float = 120.0
    between_s: float = 60.0
    tries: int = 3
    backoff_s: float = 0.5
    longest_wait_s: float = 10.0
    last_s: float = 5.0
    whole_s: float = 1800.0
    a_token_s: float = 2.0

    @property
    def timeout(self) -> httpx2.Timeout:
        """For connecting; reading is timed by the reader, for only that one knows what is a token."""
        return httpx2.Timeout(None, connect=self.connect_s, pool=self.connect_s)

    def answer_s(self, max_tokens: int) -> float:
        """For an answer of so many tokens, from when the request is sent."""
        return max(self.whole_s, self.a_token_s * max_tokens)


def use_our_client() -> None:
    """Have huggingface_hub make its asynchronous clients as `make_client` does. May be repeated.

    With its telemetry on, the first request to any server would make it ask the Hub, blocking the event loop meanwhile,
    by which signs to tell the tool that runs it.
    """
    set_async_client_factory(make_client)
    constants.HF_HUB_DISABLE_TELEMETRY = True


@cache
def certificates() -> ssl.SSLContext:
    """The authorities that are trusted; reading them takes a tenth of a second, so they are read once, in a thread."""
    return httpx2.create_ssl_context()


def make_client() -> httpx2.AsyncClient:
    """A client for one request. It asks no environment whether the Hub is offline: this is not the Hub."""
    return httpx2.AsyncClient(
        headers={"user-agent": AGENT, "accept-encoding": "identity"},
        verify=certificates(),
        follow_redirects=False,
        event_hooks={"response": [_guard]},
    )


def headers(key: SecretStr) -> dict[str, str]:
    """With the key that was given, and never another."""
    return {"authorization": f"Bearer {plain_key(key)}"}


def plain_key(key: SecretStr) -> str:
    """The key as it is sent. Raises EngineError where no header can hold it: the client would quote it in its error."""
    text = key.get_secret_value().strip() or NO_KEY
    if not text.isascii() or not text.isprintable() or " " in text:
        raise EngineError("A server's key is letters, digits and signs without spaces: copy it again.")
    return text


async def ready() -> None:
    """To be awaited before a client is made, so that making it blocks nobody."""
    await asyncio.to_thread(certificates)


@asynccontextmanager
async def opened(
    method: str, url: str, key: SecretStr, patience: Patience, body: dict[str, Any] | None = None
) -> AsyncIterator[httpx2.Response]:
    """The server's answer, whose body is still to come; it is closed at the end, read or not."""
    await ready()
    async with (
        get_async_session() as client,
        client.stream(method, url, json=body, headers=headers(key), timeout=patience.timeout) as response,
    ):
        yield response


async def _guard(response: httpx2.Response) -> None:
    """Called with each answer before its body is read."""
    response.headers.pop("x-hf-warning", None)  # huggingface_hub would log it, whatever it says
    if not response.is_success:
        raise RefusedError(
            response.status_code,
            await _beginning(response),
            response.headers.get("retry-after", ""),
            urlsplit(response.headers.get("location", "")).netloc.rpartition("@")[2],
        )
    if response.headers.get("content-encoding", "identity") != "identity":
        raise GarbageError("a compressed answer, though it was asked for a plain one")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.request.method == "POST" and kind in ("text/html", "application/json"):
        if kind == "application/json" and '"error"' in (text := await _beginning(response)):
            raise RefusedError(response.status_code, text)
        raise GarbageError(f"{kind} instead of a stream of events")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Lines(response.stream, is_stream=response.request.method == "POST")


async def _beginning(response: httpx2.Response) -> str:
    held = b""
    async for part in response.aiter_raw():
        held += part
        if len(held) >= REFUSAL_LIMIT:
            break
    return held[:REFUSAL_LIMIT].decode("utf-8", "replace")


class _Lines(httpx2.AsyncByteStream):
    """A body in whole lines, within the limits, and without what huggingface_hub or httpx2 stumbles over."""

    def __init__(self, body: httpx2.AsyncByteStream, *, is_stream: bool) -> None:
        self._body = body
        self._is_stream = is_stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held, passed, is_begun = b"", 0, False
        async for part in self._body:
            held += part
            cut = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
            passed += cut
            if len(held) - cut > LINE_LIMIT if self._is_stream else passed + len(held) - cut > LIST_LIMIT:
                raise GarbageError("more at a time than any answer has")
            if cut:
                yield _rewritten(held[:cut] if is_begun else held[:cut].removeprefix(BOM_UTF8))
                is_begun = True
                held = held[cut:]
        if held:
            yield _rewritten(held)

    async def aclose(self) -> None:
        await self._body.aclose()


def _rewritten(lines: bytes) -> bytes:
    for separator, escape in SEPARATORS.items():
        lines = lines.replace(separator, escape)
    for line, other in REWRITTEN.items():
        lines = line.sub(other, lines)
    return lines

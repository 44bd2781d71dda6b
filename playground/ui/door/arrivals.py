"""Who comes with an event, and whether it may come: an ASGI layer before Gradio that asks `newcomers` and `backlog`.

Reads which session an event names, and sees which pages listen for what they are told. An empty name, or one of any
length, is refused wherever the page runs: the first ends Gradio's queue for everybody, the second stays in its records.
Put in place by `layers`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playground.admission.visitor import Visitor
from playground.limits import Limits
from playground.ui.door.backlog import Backlog
from playground.ui.door.newcomers import Newcomers
from playground.ui.door.shield import refused
from playground.ui.visitor import address_of

OF_THEIR_OWN = "call/"
"""The route of programs that name no session: each event becomes one."""

QUEUED = "queue/join"
"""The route of events whose end is told to whoever listens."""

TOLD = "queue/data"
"""The route on which pages listen."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a session may be called; Gradio's own clients take 10 to 36 letters and numbers."""

MISNAMED = "session_hash: 1 to 64 letters and numbers, please, or leave it out."

FORGOTTEN = "There is no such event here: it was read before, or nobody came for it within a minute. Send it again."


class Arrivals:
    """`limits`: see `Limits`; `proxies` as in `Entrance`."""

    def __init__(self, app: ASGIApp, limits: Limits, proxies: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._proxies = proxies
        self._newcomers = Newcomers(limits.new_sessions_per_minute, clock)
        self._backlog = Backlog(limits.events_per_session, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"].partition("/gradio_api/")[2] if scope["type"] == "http" else ""
        if not route:
            return await self._app(scope, receive, send)
        queue = scope["app"].get_blocks()._queue
        await self._backlog.drop(queue)
        if scope["method"] == "GET":
            listener = _listener(route, scope, queue)
            if not listener and route.startswith(OF_THEIR_OWN):
                return await refused(FORGOTTEN, 404)(scope, receive, send)
            with self._backlog.listening(listener) if listener else nullcontext():
                return await self._app(scope, receive, send)
        body, receive = await _read(receive)
        named = _session(body)
        if named is not None and not NAME.fullmatch(named):
            return await refused(MISNAMED, 400)(scope, receive, send)
        if sentence := self._refusal(route, named, scope, queue):
            return await refused(sentence, 429)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _refusal(self, route: str, named: str | None, scope: Scope, queue: Any) -> str:
        session = "" if route.startswith(OF_THEIR_OWN) else named
        if session is None:
            return ""
        if not session or session not in scope["app"].state_holder:
            origin = Visitor(session, address_of(Request(scope), self._proxies)).origin
            if wait_s := self._newcomers.wait_s(session, origin):
                return f"Too many new pages from your address: wait {math.ceil(wait_s)} s, then load this one again."
        return self._backlog.refusal(session, queue) if route.startswith(QUEUED) else ""


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, whose length `Shield` has seen to, and what gives it once more to whoever comes after."""
    told: list[Message] = []
    while not told or told[-1].get("more_body"):
        told.append(await receive())
    again = iter(told)

    async def receive_again() -> Message:
        return next(again, None) or await receive()

    return b"".join(message.get("body", b"") for message in told), receive_again


def _session(body: bytes) -> str | None:
    """The session that an event names, None for none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None  # Gradio refuses it
    named = event.get("session_hash") if isinstance(event, dict) else None
    return named if isinstance(named, str) else None  # of another type, Gradio refuses it


def _listener(route: str, scope: Scope, queue: Any) -> str:
    """The session whose messages this request reads, "" for none."""
    if route.startswith(TOLD):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    if route.startswith(OF_THEIR_OWN):
        event = route.rpartition("/")[2]
        return next((session for session, events in queue.pending_event_ids_session.items() if event in events), "")
    return ""

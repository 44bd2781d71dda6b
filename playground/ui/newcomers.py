"""How many new pages one address may open within a minute, so that it cannot push everybody's conversation out.

Gradio keeps a place for every session that an event names, and forgets those that were used longest ago; whoever sends
events makes the names up. An ASGI layer that looks at the names. Put in place by `build`'s launch arguments.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playground.admission.frequency import Frequency
from playground.admission.visitor import Visitor
from playground.ui.visitor import address_of

NEW_S = 60.0
"""Seconds in which the events of a page that opens count once; by then Gradio knows its session."""

OF_THEIR_OWN = "call/"
"""The route of programs that name no session: each event becomes one."""


class Newcomers:
    """`most`: new sessions of one address within a minute; `proxies` as in `Entrance`."""

    def __init__(
        self, app: ASGIApp, most: int | None, proxies: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._proxies = proxies
        self._clock = clock
        self._came = Frequency(most, clock)
        self._new: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"].partition("/gradio_api/")[2] if scope["type"] == "http" else ""
        if route and scope["method"] == "POST":
            body, receive = await _read(receive)
            names_none = route.startswith(OF_THEIR_OWN)
            session = "" if names_none else _session(body)
            if (session or names_none) and (wait_s := self._enter(scope, session)):
                refusal = f"Too many new pages from your address: wait {math.ceil(wait_s)} s."
                return await PlainTextResponse(refusal, 429)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _enter(self, scope: Scope, session: str) -> float:
        """Seconds until this session may come, 0 for now. "" is a new one each time."""
        self._forget()
        if session and (session in self._new or session in scope["app"].state_holder):
            return 0.0
        origin = Visitor(session, address_of(Request(scope), self._proxies)).origin
        if wait_s := self._came.wait_s(origin):
            return wait_s
        self._came.count(origin)
        if session:
            self._new[session] = self._clock() + NEW_S
        return 0.0

    def _forget(self) -> None:
        """They stand in the order of their time."""
        while self._new and next(iter(self._new.values())) <= self._clock():
            del self._new[next(iter(self._new))]


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, whose length `Shield` has seen to, and what gives it once more to whoever comes after."""
    told: list[Message] = []
    while not told or told[-1].get("more_body"):
        told.append(await receive())
    again = iter(told)

    async def receive_again() -> Message:
        return next(again, None) or await receive()

    return b"".join(message.get("body", b"") for message in told), receive_again


def _session(body: bytes) -> str:
    """The session that an event names, "" for none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return ""  # Gradio refuses it
    named = event.get("session_hash") if isinstance(event, dict) else None
    return named if isinstance(named, str) else ""

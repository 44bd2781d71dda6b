"""What becomes of a page once it is closed: typed keys are forgotten at once, all else an hour after its last event.

Gradio clears the states of a closed page after an hour, and keeps what its fields and chats held. An ASGI layer that
looks at the one connection that a page holds all the time, which a browser does not take up again where it breaks. Not
Gradio's `unload`: that would make a session for whoever holds such a connection under a made-up name. Put in place by
`layers`.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from playground.ui.door.held import Held
from playground.ui.elsewhere.place import KeptKey, PanelPlace
from playground.ui.state import PanelState

HELD = "/gradio_api/heartbeat/"
GRACE_S = 15.0
"""Seconds until a page that has let go counts as closed. What it asked for last has ended by then, and writes no more:
a server may take 10 seconds to list its models, and who streams to nobody notices it within one."""

KEPT_S = 3600.0
"""Seconds since its last event after which a page that has let go is dropped, with its conversation."""


class Leaving:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._holding = Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["path"].partition(HELD)[2] if scope["type"] == "http" else ""
        if not session:
            return await self._app(scope, receive, send)
        try:
            with self._holding.by(session):
                await self._app(scope, receive, send)
        finally:
            asyncio.get_running_loop().call_later(GRACE_S, self._forget, scope["app"].state_holder, session)

    def _forget(self, holder: Any, session: str) -> None:
        if session not in self._holding and session in holder:
            forget_keys(holder.session_data[session])
            self._drop(holder, session)

    def _drop(self, holder: Any, session: str) -> None:
        """Once nothing came from it for long enough: a page whose connection broke may go on."""
        used = holder.time_last_used.get(session)
        if session in self._holding or used is None:
            return
        left_s = KEPT_S - (datetime.datetime.now() - used).total_seconds()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._drop, holder, session)
            return
        holder.session_data.pop(session, None)
        holder.time_last_used.pop(session, None)


def forget_keys(session: Any) -> None:
    """Take every key out of what Gradio keeps of a page: out of its states, and of what its fields held last."""
    for place, value in session.state_data.items():
        session.state_data[place] = _without_key(value)
    for part in session.components:
        if part["props"].get("type") == "password":
            part["props"]["value"] = ""


def _without_key(value: Any) -> Any:
    if isinstance(value, KeptKey):
        return None
    if isinstance(value, PanelPlace):
        return value.without_key()
    return value.stop() if isinstance(value, PanelState) else value

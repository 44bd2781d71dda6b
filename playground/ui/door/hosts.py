"""By which names the page may be asked for, where only this machine can open it.

A web page elsewhere can have its own name lead to this machine (DNS rebinding); the browser then takes this page for a
part of that one, and tells it all. Such requests still bear the other's name. An ASGI layer around Gradio's routes. Put
in place by `layers`.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
PORT = re.compile(r":\d*$")
REFUSAL = (
    f"This page is for the machine that it runs on, and answers to {', '.join(NAMES[:-1])} and {NAMES[-1]} alone. If a "
    "proxy of yours stands in front of it, start it with --proxies 1.\n"
)


class OwnNames:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = PORT.sub("", Headers(scope=scope).get("host", "")).lower() if scope["type"] == "http" else NAMES[0]
        if name not in NAMES:
            await PlainTextResponse(REFUSAL, 421)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

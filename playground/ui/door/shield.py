"""What is sent to the server beside its events, and what a browser may do with the page: as little as it needs.

An ASGI layer around Gradio's own routes, some of which the page has no use for: they write what anybody sends to the
disk, or answer without end. Knows no component. Put in place by `layers`.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1_000_000
"""The longest event: every text of four panels at its limit, several times over."""

UNUSED = (
    *("upload", "deep_link", "process_recording", "stream", "component_server", "run-history", "proxy="),
    *("dev/", "vibe-", "undo-vibe-"),
)
"""Routes of Gradio's by how they begin: for components that the page does not have, and for whoever writes a page."""

CONTENT = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's page has scripts in it, and compiles events' js
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "frame-src": "'none'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
"""Who may put the page in a frame is not among them: a Space is shown in one."""

HEADERS = {
    "content-security-policy": "; ".join(f"{name} {sources}" for name, sources in CONTENT.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Shield:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := _refusal(scope):
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send))


def refused(sentence: str, status: int) -> JSONResponse:
    """An answer in the form of Gradio's own: `detail` for an event in the queue, `error` for others. The page's script
    shows it, for Gradio's client in the browser does not."""
    return JSONResponse({"detail": sentence, "error": sentence}, status)


def _refusal(scope: Scope) -> JSONResponse | None:
    if _is_unused(scope["path"]):
        return refused("This page has no use for that.", 403)
    sizes = [value for name, value in scope["headers"] if name == b"content-length"]
    if not sizes and any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        return refused("Say how long the request is: Content-Length.", 411)
    if any(not size.isdigit() or int(size) > MAX_BODY_BYTES for size in sizes):
        return refused(f"A request may be {MAX_BODY_BYTES:,} bytes long.", 413)
    return None


def _is_unused(path: str) -> bool:
    _, ours, route = path.partition("/gradio_api/")
    return bool(ours) and route.startswith(UNUSED)


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return answer

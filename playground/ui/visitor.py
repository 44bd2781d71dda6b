"""Who sends an event, and the gate that they come through with it.

Reads Gradio's request; decides nothing. Made by `build`, asked by the handlers of the page and by the API;
`arrivals` asks for the address alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import gradio as gr
from starlette.requests import Request

from playground.admission.gate import Gate
from playground.admission.visitor import Visitor
from playground.limits import Limits


@dataclass(frozen=True)
class Entrance:
    """`proxies`: how many reverse proxies stand in front, each of which adds whom it heard from to X-Forwarded-For."""

    gate: Gate = field(default_factory=Gate)
    proxies: int = 0

    @property
    def limits(self) -> Limits:
        return self.gate.limits

    def visitor(self, request: gr.Request) -> Visitor:
        return Visitor(request.session_hash or "", address_of(request, self.proxies), request.username or "")


def address_of(request: gr.Request | Request, proxies: int) -> str:
    """Whom the outermost of our proxies heard from. What stands before that is whatever the client wrote."""
    told = [part.strip() for line in request.headers.getlist("x-forwarded-for") for part in line.split(",")]
    if proxies and len(told) >= proxies:
        return _without_port(told[-proxies])
    return request.client.host if request.client else ""


def _without_port(address: str) -> str:
    """Some proxies write 192.0.2.7:4711 and [2001:db8::7]:4711."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address

"""What a panel knows of its place: this machine, or the server that answers for its model.

Frozen values; a place that was chosen for another model is none for this one. Knows no gradio. Kept in `gr.State`;
called by the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pydantic import SecretStr

from playground.engines.elsewhere import NO_KEY, Elsewhere
from playground.types import EndpointUse

THIS_MACHINE = "this machine"
ANOTHER = "another server"
"""Entries of the menu that are no server of the catalog. No server can be called so: ids have no space."""


@dataclass(frozen=True, slots=True)
class PanelPlace:
    """Where `model_id` runs in this panel: `value` is the menu's entry of it, `endpoint` is None for this machine, and
    `name` is what the catalog calls the server."""

    model_id: str = ""
    value: str = THIS_MACHINE
    endpoint: EndpointUse | None = None
    name: str = ""

    @property
    def words(self) -> str:
        """Such as "this machine", "KULLM3 on vLLM · 10.0.0.7:8000", "10.0.0.7:8000 · kullm3"."""
        if self.endpoint is None:
            return THIS_MACHINE
        where = self.endpoint.address
        return f"{self.name} · {where}" if self.name else f"{where} · {self.endpoint.model}"

    def without_key(self) -> PanelPlace:
        if self.endpoint is None:
            return self
        return replace(self, endpoint=self.endpoint.without_key())


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key that the user gave, and the server that it was given for: no other is sent it."""

    url: str
    secret: SecretStr

    def fits(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.url)[:2]


def place_of(place: PanelPlace, model_id: str, elsewhere: Elsewhere) -> PanelPlace:
    """The place as it holds for this model: what was chosen for it, else its first server, else this machine."""
    return place if place.model_id == model_id else first_place(model_id, elsewhere)


def first_place(model_id: str, elsewhere: Elsewhere) -> PanelPlace:
    """Where a model runs that nobody has chosen a place for."""
    servers = elsewhere.servers_of(model_id)
    return server_place(model_id, servers[0].id, elsewhere) if servers else PanelPlace(model_id)


def server_place(model_id: str, server_id: str, elsewhere: Elsewhere, model: str = "") -> PanelPlace:
    """A server of the catalog; `model` is one of its models, the first if left out. Raises EngineError."""
    endpoint = elsewhere.use(model_id, server_id, model)
    known = {server.id: server for server in elsewhere.servers_of(model_id)}
    server = known[server_id.strip().lower()]
    return PanelPlace(model_id, server.id, endpoint, server.name)


def key_for(kept: KeptKey | None, url: str) -> SecretStr:
    return kept.secret if kept and kept.fits(url) else NO_KEY

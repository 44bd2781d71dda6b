"""Servers as programs know them: by the catalog's ids. A program cannot name one of its own, wherever the page runs.

A url that anyone may send would let them reach whatever this machine can reach; people who may do so type it into a
panel. Knows no endpoint. Called by `endpoints`.
"""

from __future__ import annotations

from typing import Any

from playground.engines.elsewhere import Elsewhere
from playground.errors import EngineError
from playground.types import EndpointUse
from playground.ui.elsewhere.place import THIS_MACHINE


def described(elsewhere: Elsewhere, model_id: str) -> list[dict[str, Any]]:
    """The servers of the catalog that answer for a model; without their addresses, for a program gives none either.

    They are no secret: the page's menus, which anybody who may open it can read, name them.
    """
    return [
        {"id": server.id, "name": server.name, "models": [*server.models]} for server in elsewhere.servers_of(model_id)
    ]


def asked_server(elsewhere: Elsewhere, model_id: str, server: str | None) -> str:
    """The id of the server that shall answer, "" for this machine. None is the model's first, if it has one."""
    if server is None:
        return next((each.id for each in elsewhere.servers_of(model_id)), "")
    named = server.strip().lower()
    return "" if named == THIS_MACHINE else named


def endpoint(elsewhere: Elsewhere, model_id: str, server: str, adapter: str | None, scale: float) -> EndpointUse:
    """How a server of the catalog is asked; `adapter` is one of its models.

    Raises:
        EngineError: there is no such server, it has no such model, or a scale is asked of it.
    """
    if scale != 1:
        raise EngineError(f'adapter_scale: a server takes no scale. Leave it out, or pass server="{THIS_MACHINE}".')
    try:
        return elsewhere.use(model_id, server, (adapter or "").strip())
    except EngineError as error:
        if not (adapter or "").strip():
            raise
        raise EngineError(f'{error} An adapter of this machine needs server="{THIS_MACHINE}".') from error


def told(use: EndpointUse | None, server: str) -> dict[str, str] | None:
    """What an update says of the server."""
    return {"id": server, "model": use.model} if use else None

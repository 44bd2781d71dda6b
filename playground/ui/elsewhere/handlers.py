"""What happens in the box "Runs on": choosing a place, naming a server, listing its models, its key.

Choosing is checking: what was in use stays so until the next place is accepted. What a browser sends is checked here
and in the engines' rooms, whatever the components allow: anybody can make up an event. Wired by `elsewhere.events`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from pydantic import SecretStr

from playground.errors import EngineError, PlaygroundError
from playground.types import address_of
from playground.ui.adapter_state import Choosing
from playground.ui.elsewhere import box
from playground.ui.elsewhere.place import (
    ANOTHER,
    THIS_MACHINE,
    KeptKey,
    PanelPlace,
    key_for,
    place_of,
    server_place,
)
from playground.ui.view import error_box, hint
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

UNEXPECTED = "Unexpected error while asking the server: the log has the details."
LONGEST = 4_000
"""Characters of an address, a key, a model's name."""

TOLD = 5
"""Names of models that a sentence tells."""

log = logging.getLogger(__name__)


class Spot(NamedTuple):
    """Where a choice is made: the panel's model, its place, its `Choosing`, the key that it keeps."""

    model_id: str
    place: PanelPlace
    choosing: Choosing
    kept: KeptKey | None


class Named(NamedTuple):
    """What the fields hold; an empty menu holds None."""

    url: Any
    key: Any
    model: Any
    same_model: Any


Ask = Callable[[str, SecretStr], Awaitable[list[Any]]]
"""Asks a server, by its url and key, and says what to paint."""


@dataclass(frozen=True)
class PlaceHandlers:
    """The outputs of all of them are `PlaceControls.outputs`. To ask a server counts among the prompts of a minute."""

    pool: Pool
    entrance: Entrance = field(default_factory=Entrance)

    async def choose(self, value: Any, *rest: Any) -> list[Any]:
        """Put a place of the menu in use, or open the fields that name another. Inputs: the menu, the panel's Spot."""
        spot = Spot(*rest)
        spot.choosing.begin()
        if value == ANOTHER and self.pool.elsewhere.may_be_named:
            return paint(fields=gr.Column(visible=True), served=gr.update(visible=False), notice="")
        try:
            return self.put(self._chosen(spot.model_id, str(value)))
        except PlaygroundError as error:
            return _refused(error, spot, where=gr.update(value=spot.place.value))

    async def choose_served(self, model: Any, *rest: Any) -> list[Any]:
        """Have another model of the catalog's server answer. Inputs: the menu of them, the panel's Spot."""
        spot = Spot(*rest)
        spot.choosing.begin()
        try:
            return self.put(server_place(spot.model_id, spot.place.value, self.pool.elsewhere, str(model)))
        except PlaygroundError as error:
            return _refused(error, spot)

    async def list_models(self, request: gr.Request, *rest: Any) -> AsyncIterator[list[Any]]:
        """Ask the server that is named for its models. Inputs: Named, the panel's Spot."""
        named, spot = Named(*rest[:4]), Spot(*rest[4:])

        async def ask(url: str, key: SecretStr) -> list[Any]:
            models = await self.pool.elsewhere.models(url, key)
            if not models:
                return paint(notice=hint(f"{address_of(url)} lists no models: type what it calls the one you mean."))
            chosen = named.model or models[0]
            return paint(model=gr.update(choices=[*models], value=chosen), notice=hint(_listing(url, models)))

        async for painted in self._asking(request, named, spot, ask):
            yield painted

    async def use_named(self, request: gr.Request, *rest: Any) -> AsyncIterator[list[Any]]:
        """Put the server that is named in use, once it answers. Inputs: Named, the panel's Spot."""
        named, spot = Named(*rest[:4]), Spot(*rest[4:])

        async def ask(url: str, key: SecretStr) -> list[Any]:
            elsewhere = self.pool.elsewhere
            endpoint = elsewhere.named(url, str(named.model or ""), key, messages_only=not named.same_model)
            models = await elsewhere.models(url, key)
            place = PanelPlace(spot.model_id, ANOTHER, endpoint)
            said = f"In use: prompts go to {place.words}."
            if endpoint.model not in models:
                said += f" {_listing(url, models)} Whether it has {endpoint.model} shows with the first prompt."
            return paint(state=place, box=gr.update(label=box.label(place)), notice=hint(said))

        async for painted in self._asking(request, named, spot, ask):
            yield painted

    async def forget(self, *rest: Any) -> list[Any]:
        """Forget the key. Inputs: the panel's Spot."""
        spot = Spot(*rest)
        spot.choosing.begin()
        return paint(**_key(None), state=spot.place.without_key(), notice="")

    async def follow(self, *rest: Any) -> list[Any]:
        """The panel has another model: its place is that model's first. Inputs: the panel's Spot."""
        spot = Spot(*rest)
        if spot.place.model_id == spot.model_id:
            return paint()
        spot.choosing.begin()
        return self.put(place_of(spot.place, spot.model_id, self.pool.elsewhere))

    def put(self, place: PanelPlace) -> list[Any]:
        """The place in use, as the menus have it."""
        here = box.properties(place, self.pool.elsewhere, self._fits_here(place.model_id))
        closed = gr.Column(visible=False)
        updates = {name: gr.update(**here[name]) for name in ("box", "where", "served")}
        return paint(state=place, fields=closed, notice=here["notice"], **updates)

    def _chosen(self, model_id: str, value: str) -> PanelPlace:
        """Raises PlaygroundError."""
        if value != THIS_MACHINE:
            return server_place(model_id, value, self.pool.elsewhere)
        if self.pool.elsewhere.servers_of(model_id) and not self._fits_here(model_id):
            raise EngineError(f"This machine cannot hold {model_id}: choose a server.")
        return PanelPlace(model_id)

    def _fits_here(self, model_id: str) -> bool:
        return self.pool.status(model_id).state != "too_large"

    async def _asking(self, request: gr.Request, named: Named, spot: Spot, ask: Ask) -> AsyncIterator[list[Any]]:
        """Takes the key, asks, and tells; nothing of the answer where something else was chosen meanwhile."""
        ticket = spot.choosing.begin()
        try:
            _require_short(named)
            self.entrance.gate.count(self.entrance.visitor(request))
            url = self.pool.elsewhere.require_nameable(str(named.url or ""))
            kept = _kept(str(named.key or ""), url, spot.kept)
            yield paint(**_key(kept), notice=hint(f"Asking {address_of(url)} …"))
            painted = await ask(url, key_for(kept, url))
        except PlaygroundError as error:
            painted = _refused(error, spot)
        except Exception as error:
            log.error("asking a server for its models: %s", type(error).__name__)  # its words may hold the key
            painted = _refused(EngineError(UNEXPECTED), spot)
        yield painted if spot.choosing.is_last(ticket) else paint()


def _require_short(named: Named) -> None:
    """Raises EngineError."""
    for name, value in (("Address", named.url), ("Key", named.key), ("Model", named.model)):
        if len(str(value or "")) > LONGEST:
            raise EngineError(f"{name}: at most {LONGEST:,} characters may be sent. Shorten it.")


def paint(**changes: Any) -> list[Any]:
    """`PlaceControls.outputs` with these changes."""
    return [changes.get(name, gr.skip()) for name in box.NAMES]


def _key(kept: KeptKey | None) -> dict[str, Any]:
    """The key on the server's side alone: its field is emptied."""
    said = box.key_line(kept)
    return {"kept": kept, "key": "", "key_row": gr.Row(visible=kept is not None), "key_said": said}


def _kept(typed: str, url: str, before: KeptKey | None) -> KeptKey | None:
    return KeptKey(url, SecretStr(typed.strip())) if typed.strip() else before


def _refused(error: PlaygroundError, spot: Spot, **changes: Any) -> list[Any]:
    return paint(notice=error_box(str(error), f"Prompts go to {box.in_use(spot.place)}, as before."), **changes)


def _listing(url: str, models: tuple[str, ...]) -> str:
    if not models:
        return f"{address_of(url)} lists no models."
    more = f" and {len(models) - TOLD} more" if len(models) > TOLD else ""
    return f"{address_of(url)} lists {', '.join(models[:TOLD])}{more}."

"""One panel's box "Runs on", as Gradio would hold it, for tests of its handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from desk import SKIP, asked_from
from fakes import FakePool, Script, spec

from model_registry.registry import Registry
from model_registry.spec import ServerSpec
from playground.admission.gate import Gate
from playground.engines.elsewhere import Elsewhere
from playground.limits import OPEN, Limits
from playground.ui.adapter_state import Choosing
from playground.ui.elsewhere.box import NAMES
from playground.ui.elsewhere.handlers import PlaceHandlers
from playground.ui.elsewhere.place import KeptKey, first_place
from playground.ui.visitor import Entrance

Painted = dict[str, Any]


class Chooser:
    """One panel's box, as Gradio would hold it."""

    def __init__(
        self,
        model_id: str = "a",
        servers: Sequence[ServerSpec] = (),
        endpoints: Sequence[str] = (),
        any_endpoint: bool = True,
        limits: Limits = OPEN,
        **scripts: Script,
    ) -> None:
        self.pool = FakePool(Registry([spec("a"), spec("b")], servers=servers), scripts)
        self.pool.elsewhere = Elsewhere(self.pool.registry, endpoints, any_endpoint)
        self.own = PlaceHandlers(self.pool, Entrance(Gate(limits)))
        self.model_id, self.choosing = model_id, Choosing()
        self.place = first_place(model_id, self.pool.elsewhere)
        self.kept: KeptKey | None = None

    @property
    def spot(self) -> list[Any]:
        return [self.model_id, self.place, self.choosing, self.kept]

    async def choose(self, value: Any) -> Painted:
        return self.put(await self.own.choose(value, *self.spot))

    async def choose_served(self, model: Any) -> Painted:
        return self.put(await self.own.choose_served(model, *self.spot))

    async def list_models(self, url: Any, key: Any = "", model: Any = None) -> list[Painted]:
        return await self._paints(self.own.list_models(asked_from("192.0.2.1"), url, key, model, True, *self.spot))

    async def use(self, url: Any, model: Any = "kullm3", key: Any = "", same_model: bool = True) -> list[Painted]:
        return await self._paints(self.own.use_named(asked_from("192.0.2.1"), url, key, model, same_model, *self.spot))

    async def _paints(self, steps: AsyncIterator[list[Any]]) -> list[Painted]:
        return [self.put(values) async for values in steps]

    def put(self, values: list[Any]) -> Painted:
        painted = {name: value for name, value in zip(NAMES, values, strict=True) if value != SKIP}
        self.place = painted.get("state", self.place)
        self.kept = painted.get("kept", self.kept)
        return painted

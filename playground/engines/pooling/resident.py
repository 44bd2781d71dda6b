"""One engine that has a place: a model's own, or the one of the model with an adapter, a view.

A view lives in its base's process, so it comes after its base, and is gone when its base is. Made by `residency`, kept
by the roster, which alone changes it. Knows neither threads nor placement's arithmetic.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.pooling.loading import Loading, shared
from playground.placement.plan import Placement
from playground.placement.views import View
from playground.types import EngineLabel


@dataclass(eq=False, slots=True)
class Resident:
    """On its way, there, or leaving.

    view, host: the adapter, and the base's resident; both None for a model's own engine.
    loading: how far it is; the engine, when that is there.
    last_used: the roster's count of events when the last of its users came or went.
    users: streams that wait for it or are answered by it; those of a view use its base too.
    gone: set when its memory is free again.
    """

    spec: ModelSpec
    placement: Placement
    view: View | None = None
    host: Resident | None = None
    last_used: int = 0
    users: int = 0
    loading: Loading = field(init=False)
    gone: Future[None] = field(init=False, default_factory=lambda: shared(Future()))

    def __post_init__(self) -> None:
        self.loading = Loading(self.tag)

    @property
    def label(self) -> EngineLabel:
        """What it is asked for by."""
        view = self.view
        return EngineLabel(self.spec.id, None if view is None else view.adapter.use(view.scale))

    @property
    def name(self) -> str:
        """For people."""
        return self.spec.name if self.view is None else self.view.name

    @property
    def tag(self) -> str:
        """For the log."""
        return self.spec.id if self.view is None else f"{self.spec.id} with {self.view.adapter.id}"

    @property
    def in_use(self) -> tuple[Resident, ...]:
        """Who is used by its users, in the order in which they come."""
        return (self,) if self.host is None else (self.host, self)

    @property
    def engine(self) -> Engine | None:
        """None while it is on its way."""
        return self.loading.arrived.result() if self.loading.is_done else None

    @property
    def is_idle(self) -> bool:
        return self.users == 0

    @property
    def is_dead(self) -> bool:
        """Whether its engine ended by itself."""
        return self.engine is not None and not self.engine.alive

    @property
    def doing(self) -> str:
        return "is answering" if self.loading.is_done else "is being loaded"

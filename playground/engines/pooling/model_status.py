"""What a menu says of a model: there, on its way, on this machine, on the Hub, too large, failed.

Asked often and for every model, so it is cheap: what cannot change is worked out once. Used by the pool. Asks no
network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_registry.spec import ModelSpec
from playground.engines.pooling.resident import Resident
from playground.placement.site import Site, needs
from playground.types import LoadProgress

ModelState = Literal["ready", "loading", "local", "download", "too_large", "not_here", "failed"]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """`detail` goes into the menu beside the name: "ready", "downloads 14.7 GB", "needs 21.5 GB".

    A model that failed says why there, in a sentence. `progress` only while loading; `place` is the sentence of the
    placement plan while the model has a place, else "".
    """

    model_id: str
    state: ModelState
    detail: str
    progress: LoadProgress | None = None
    place: str = ""


def status_of_resident(resident: Resident) -> ModelStatus:
    place = resident.placement.reason
    if resident.loading.is_done:
        return ModelStatus(resident.spec.id, "ready", "ready", None, place)
    return ModelStatus(resident.spec.id, "loading", "loading", resident.loading.progress, place)


class Prospects:
    """What is true of models that have no place now."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lacks: dict[str, str] = {}
        """What each model that was asked for lacks here, "" where the empty machine has room for it."""

    def status(self, spec: ModelSpec, failure: str) -> ModelStatus:
        from playground.engines.checkpoints.checkpoint import is_local  # huggingface_hub: not before the page needs it

        if lack := self._lack(spec):
            return ModelStatus(spec.id, "too_large", lack)
        if failure:
            return ModelStatus(spec.id, "failed", failure)
        if is_local(spec):
            return ModelStatus(spec.id, "local", "on this machine")
        return ModelStatus(spec.id, "download", f"downloads {spec.weights.bytes / 1e9:.1f} GB")

    def _lack(self, spec: ModelSpec) -> str:
        if spec.id not in self._lacks:
            self._lacks[spec.id] = "" if self._site.find([spec]) else needs(spec, self._site)
        return self._lacks[spec.id]

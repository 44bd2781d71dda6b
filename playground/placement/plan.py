"""What a plan says: which model stands on which devices, in what precision, with how much room for contexts.

Values only, made by `planner`, carried to the engines by the pool and shown by the UI. Knows neither torch nor the
arithmetic behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from model_registry.spec import Dtype

Quantisation = Literal["none", "8-bit", "4-bit"]
QuantisationChoice = Literal["auto", "none", "8-bit", "4-bit"]


@dataclass(frozen=True, slots=True)
class Device:
    """`name` as torch writes it ("cuda:1", "cpu"); `free_bytes` is what can still be taken."""

    name: str
    kind: Literal["cuda", "cpu"]
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user asks of a plan.

    contexts: full contexts for which KV cache is wanted, so many answers of full length at once; a model gets fewer,
        but never less than one, where that spares a step down in the order of preference.
    quantisation: "auto" quantises only what does not fit otherwise, "none" never, "8-bit" and "4-bit" always.
    offload: whether weights may lie in the CPU's memory and travel to the GPU for every token.
    can_quantise: whether quantised weights can be loaded here. Where they cannot, "auto" quantises nothing, and "8-bit"
        and "4-bit" have no place on a GPU.
    strict: whether weights are quantised and offloaded by nobody here, so that neither is suggested where nothing fits.
    views: engines that one model with adapters may have at a time, at least one.
    """

    contexts: int = 4
    quantisation: QuantisationChoice = "auto"
    offload: bool = False
    can_quantise: bool = True
    strict: bool = False
    views: int = 8


@dataclass(frozen=True, slots=True)
class Share:
    """What one device holds of one model; all sizes in bytes.

    first_layer, last_layer: the transformer blocks here, both included, counted from 0. The embeddings stand with the
        first block, the final norm and the head with the last, or with the embeddings where they are tied.
    working_bytes: activations of a batch, and what the framework takes for itself.
    """

    device: str
    first_layer: int
    last_layer: int
    weight_bytes: int
    kv_bytes: int
    working_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.working_bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """One model's place, or that of the model with an adapter: beside its base, with what it takes beyond it.

    dtype: of the arithmetic, and of the weights where `quantisation` is "none".
    kv_tokens: tokens of context that its KV cache holds over all requests.
    shares: one a device, in the order of the layers. With offloading, the last is the CPU's.
    reason: a sentence on where it is and why.
    """

    model_id: str
    dtype: Dtype
    quantisation: Quantisation
    kv_tokens: int
    shares: tuple[Share, ...]
    reason: str

    @property
    def device(self) -> str:
        """Where its first layers are, and where prompts go."""
        return self.shares[0].device

    @property
    def is_spread(self) -> bool:
        """Over several devices, so that the sharded engine serves it."""
        return len(self.shares) > 1

    @property
    def weight_bytes(self) -> int:
        return sum(share.weight_bytes for share in self.shares)

    @property
    def total_bytes(self) -> int:
        return sum(share.total_bytes for share in self.shares)


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Where the models asked for go, in the order in which they were asked for."""

    placements: tuple[Placement, ...]

    def of(self, model_id: str) -> Placement:
        return next(placement for placement in self.placements if placement.model_id == model_id)

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(placement.reason for placement in self.placements)


def bytes_by_device(placements: Iterable[Placement]) -> Counter[str]:
    """What placed models take, by the name of the device."""
    taken: Counter[str] = Counter()
    for placement in placements:
        for share in placement.shares:
            taken[share.device] += share.total_bytes
    return taken

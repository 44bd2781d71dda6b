"""Placements made by hand, for tests of what comes after the planner."""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.spec import Dtype, ModelSpec
from playground.placement.plan import Placement, Quantisation, Share


def placed(
    spec: ModelSpec,
    devices: Sequence[str] = ("cpu",),
    dtype: Dtype = "float32",
    quantisation: Quantisation = "none",
    kv_tokens: int = 512,
) -> Placement:
    """The model's layers on the devices, in equal parts."""
    layers = spec.dimensions.layers
    ends = [layers * number // len(devices) for number in range(len(devices) + 1)]
    parts = zip(devices, ends, ends[1:], strict=False)
    shares = tuple(Share(device, begin, end - 1, 10**8, 10**6, 10**6) for device, begin, end in parts)
    return Placement(spec.id, dtype, quantisation, kv_tokens, shares, "placed by hand")

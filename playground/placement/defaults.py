"""Which models the panels show when nobody says: the real ones where GPUs hold them, else their stand-ins.

Called by the composition root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model_registry.registry import Registry
from playground.placement.plan import Device, PlanOptions
from playground.placement.planner import fits_on_gpus


def default_models(
    registry: Registry,
    devices: Sequence[Device],
    options: PlanOptions = PlanOptions(),  # noqa: B008 (frozen)
) -> tuple[str, ...]:
    """Model ids, one a panel: what the catalog's stand-ins stand for, or the stand-ins themselves.

    Nobody who named no model gets tens of gigabytes downloaded to see them quantised, unless quantising was asked for.
    """
    options = replace(options, quantisation="none") if options.quantisation == "auto" else options
    stand_ins = [spec for spec in registry if spec.stand_in_for is not None]
    real = [registry.get(spec.stand_in_for) for spec in stand_ins if spec.stand_in_for is not None]
    return tuple(spec.id for spec in (real if fits_on_gpus(real, devices, options) else stand_ins))

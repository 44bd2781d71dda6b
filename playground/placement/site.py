"""A machine and what its user asks of plans, so that a place can be asked for by naming models alone.

Made by the composition root and the pool, asked by the pool's rooms. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_registry.spec import ModelSpec
from playground.placement.plan import Device, Placement, PlacementPlan, PlanOptions
from playground.placement.planner import find_plan, plan


@dataclass(frozen=True, slots=True)
class Site:
    """devices: what the machine has, and had free before any model came."""

    devices: Sequence[Device]
    options: PlanOptions

    def find(self, specs: Sequence[ModelSpec], standing: Sequence[Placement] = ()) -> PlacementPlan | None:
        """Places beside models that stand already; None where there is no room."""
        return find_plan(specs, self.devices, self.options, standing)

    def plan(self, specs: Sequence[ModelSpec]) -> PlacementPlan:
        """Places on the empty machine. Raises PlacementError with what is missing and what would help."""
        return plan(specs, self.devices, self.options)

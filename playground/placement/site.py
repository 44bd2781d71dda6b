"""A machine and what its user asks of plans, so that a place can be asked for by naming models alone.

Made by the composition root and the pool, asked by the pool's rooms. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from model_registry.spec import ModelSpec
from playground.placement.explain import gigabytes
from playground.placement.footprint import footprint
from playground.placement.plan import Device, Placement, PlacementPlan, PlanOptions
from playground.placement.planner import find_plan, plan
from playground.placement.quantising import INSTALL
from playground.placement.views import View, find_place, missing


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

    def find_view(self, view: View, standing: Sequence[Placement]) -> Placement | None:
        """A place for a model with an adapter beside its base, which stands already; None where there is no room."""
        return find_place(view, self.devices, self.options, standing)

    def missing(self, view: View, standing: Sequence[Placement]) -> str:
        """What a view lacks that has no place: "0.4 GB on cuda:0 are missing"."""
        return missing(view, self.devices, self.options, standing)

    def remedy(self, view: View, others: Sequence[ModelSpec]) -> str:
        """Options with which a view would have a place beside its base and other models, "" where none would do."""
        specs = [view.spec, *others]
        for words, options in _milder(self.options, view.spec):
            site = replace(self, options=options)
            plan = site.find(specs)
            if plan is not None and site.find_view(replace(view, base=plan.of(view.spec.id)), plan.placements):
                return words
        return ""


def needs(spec: ModelSpec, site: Site) -> str:
    """For the menu, of a model that fits nowhere here: "needs 23.2 GB", or "needs 23.2 GB, or bitsandbytes".

    Looks for a place, so keep the answer.
    """
    has_gpu = any(device.kind == "cuda" for device in site.devices)
    size = f"needs {gigabytes(footprint(spec, 'none', 'cuda' if has_gpu else 'cpu').whole_bytes(1))}"
    options = site.options
    quantised = Site(site.devices, replace(options, quantisation="auto", can_quantise=True))
    if quantised == site or quantised.find([spec]) is None:
        return size
    return f"{size}, or {'--quantise auto' if options.can_quantise else 'bitsandbytes'}"


def _milder(options: PlanOptions, spec: ModelSpec) -> Iterator[tuple[str, PlanOptions]]:
    """Options that ask for less memory, and how to say them."""
    for contexts in range(options.contexts - 1, 0, -1):
        yield f"--contexts {contexts}", replace(options, contexts=contexts)
    install = "" if options.can_quantise else f" (after `{INSTALL}`)"
    for bits in spec.quantisations:
        quantised = replace(options, quantisation=bits, can_quantise=True)
        yield f"--quantise {bits}{install}", quantised
        yield f"--quantise {bits} --contexts 1{install}", replace(quantised, contexts=1)

"""The order in which the planner tries things; each step is taken only where none before it has room for all models.

1. 16-bit weights, then 8-bit, then 4-bit, where the options and the catalog allow it: no 4-bit weights while 8-bit ones
   would do, as few quantised models as will do, and the larger model before the smaller, which suffers more.
2. With the same weights: every model whole on one GPU; then as few models as will do spread over several GPUs.
3. So placed: on as few devices as a spread model needs, and no two models on one device while there is another.
4. With CPU offloading, and only where asked for: as few models as will do keep some layers in the CPU's memory. They
   stay at 16 bits, for bitsandbytes' weights do not travel. This is the last resort, after 4-bit weights.

Before any step down, models get room for fewer full contexts than wanted, down to one; what is left over then is given
back, a context at a time.

The CPU serves models in float32. It takes anything that it has memory for where there are no GPUs. Beside GPUs it takes
only models so small that it answers at reading speed, and only where no GPU has room: a large model that silently
landed there would seem to hang, so it is refused, and the error says what would help.

1, 2 and 4 are here, 3 in `search`, contexts in `planner`, which calls this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import get_args

from model_registry.spec import ModelSpec
from playground.placement.footprint import Footprint, footprint
from playground.placement.plan import PlanOptions, Quantisation
from playground.placement.search import Demand, Machine, Manner, may_fit

SMALL = 1_000_000_000
"""Parameters up to which a CPU answers at reading speed: in float32 a token reads 4 GB of memory."""

SEVERITY: tuple[Quantisation, ...] = get_args(Quantisation)


def steps(specs: Sequence[ModelSpec], options: PlanOptions, machine: Machine) -> Iterator[list[Demand]]:
    """What is tried, in the order of preference, less what cannot fit by its sum alone."""
    forms = _Forms(machine)
    if not machine.gpus:
        yield [forms.demand(spec, "none", "whole") for spec in specs]
        return
    for offloaded in _subsets(specs) if options.offload else [frozenset[str]()]:
        may_spread = [spec for spec in specs if spec.id not in offloaded]
        for quantisations in _quantisations(specs, offloaded, options):
            chosen = list(zip(specs, quantisations, strict=True))
            if not may_fit(forms.demands(chosen, frozenset(), offloaded), machine):
                continue
            for spread in _subsets(may_spread) if len(machine.gpus) > 1 else [frozenset[str]()]:
                yield forms.demands(chosen, spread, offloaded)


class _Forms:
    """Every model in every form, each worked out once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._footprints: dict[tuple[str, Quantisation], Footprint] = {}
        self._demands: dict[tuple[str, Quantisation, Manner], Demand] = {}

    def demands(
        self, chosen: Sequence[tuple[ModelSpec, Quantisation]], spread: frozenset[str], offloaded: frozenset[str]
    ) -> list[Demand]:
        manners: list[Manner] = [
            "offloaded" if spec.id in offloaded else "spread" if spec.id in spread else "whole" for spec, _ in chosen
        ]
        return [self.demand(spec, bits, manner) for (spec, bits), manner in zip(chosen, manners, strict=True)]

    def demand(self, spec: ModelSpec, quantisation: Quantisation, manner: Manner) -> Demand:
        found = self._demands.get((spec.id, quantisation, manner))
        if found is None:
            found = self._demands[spec.id, quantisation, manner] = self._new_demand(spec, quantisation, manner)
        return found

    def _new_demand(self, spec: ModelSpec, quantisation: Quantisation, manner: Manner) -> Demand:
        may_use_cpu = manner == "whole" and (not self._machine.gpus or spec.parameters <= SMALL)
        return Demand(
            spec=spec,
            quantisation=quantisation,
            manner=manner,
            on_gpu=footprint(spec, quantisation) if self._machine.gpus else None,
            on_cpu=footprint(spec, "none", "cpu") if may_use_cpu and self._machine.cpu else None,
        )


def _subsets(specs: Sequence[ModelSpec]) -> Iterator[frozenset[str]]:
    """Ids of none, one, two … of the models, larger ones first."""
    ids = [spec.id for spec in sorted(specs, key=lambda spec: -spec.parameters)]
    for count in range(len(ids) + 1):
        yield from map(frozenset, combinations(ids, count))


def _quantisations(
    specs: Sequence[ModelSpec], offloaded: frozenset[str], options: PlanOptions
) -> list[tuple[Quantisation, ...]]:
    """One quantisation for each model, from the mildest combination to the most severe."""
    allowed = [_allowed(spec, options, spec.id in offloaded) for spec in specs]
    by_size = sorted(range(len(specs)), key=lambda number: -specs[number].parameters)

    def severity(chosen: tuple[Quantisation, ...]) -> tuple[int, ...]:
        levels = [SEVERITY.index(quantisation) for quantisation in chosen]
        # Few at 4 bits before few at 8: and of one model, the larger.
        return (levels.count(2), levels.count(1), *(-levels[number] for number in by_size))

    return sorted(product(*allowed), key=severity)


def _allowed(spec: ModelSpec, options: PlanOptions, offloaded: bool) -> tuple[Quantisation, ...]:
    """Nothing where only quantised weights would do as asked, and these cannot be offloaded, or not be loaded here."""
    possible = options.can_quantise and not offloaded
    if options.quantisation == "auto" and possible:
        return ("none", *spec.quantisations)
    if options.quantisation in spec.quantisations:
        return (options.quantisation,) if possible else ()
    return ("none",)

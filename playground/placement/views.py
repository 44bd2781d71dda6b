"""Where a model with an adapter goes: beside its base, on the same devices, in the same process.

It takes the adapter's weights, a KV cache of its own, and what the steps of one engine more take. The base's weights
and the process are there already. Asked by the pool through `site`. Knows neither torch nor engines.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterFacts, CheckedAdapter
from playground.placement.explain import full_contexts, gigabytes, listed
from playground.placement.footprint import BYTES, footprint
from playground.placement.plan import Device, Placement, PlanOptions, Share, bytes_by_device

VIEW_GPU_BYTES = 200_000_000
"""What one engine more takes of a GPU in a process that is there: cuBLAS' workspaces for its thread, and what belongs
to the CUDA graphs that it records. An estimate."""

TOLD_BYTES = 100_000_000
"""Missing bytes are told to this."""

LAYER = re.compile(r"\.(\d+)\.")
"""In a module's name: the number of its block."""


@dataclass(frozen=True, slots=True)
class View:
    """A model with an adapter.

    base: where the model itself stands, or will.
    scale: multiplies the adapter's effect.
    """

    spec: ModelSpec
    base: Placement
    adapter: CheckedAdapter
    scale: float = 1.0

    @property
    def name(self) -> str:
        """For people: "KULLM3 with kullm3-formal at 0.5"."""
        scale = "" if self.scale == 1 else f" at {self.scale:g}"
        return f"{self.spec.name} with {self.adapter.name}{scale}"


def find_place(
    view: View, devices: Sequence[Device], options: PlanOptions, standing: Sequence[Placement]
) -> Placement | None:
    """Its place; None where not even one full context fits.

    It gets as many contexts as leave room for another one like it, for adapters are there to be compared. Where there
    is no such room, it gets what there is.

    Args:
        devices: as for `planner.plan`.
        standing: all that has a place already, the base included.
    """
    another = _placed(view, 1, options)
    for beside in ([another], []):
        for contexts in range(options.contexts, 0, -1):
            found = _placed(view, contexts, options)
            if not _lacking([found, *beside], devices, standing):
                return found
    return None


def missing(view: View, devices: Sequence[Device], options: PlanOptions, standing: Sequence[Placement]) -> str:
    """What it lacks for one full context: "0.4 GB on cuda:0 are missing"."""
    lacking = _lacking([_placed(view, 1, options)], devices, standing)
    told = {name: gigabytes(-(-size // TOLD_BYTES) * TOLD_BYTES) for name, size in lacking.items()}
    return f"{listed([f'{size} on {name}' for name, size in told.items()])} are missing"


def _lacking(wanted: Sequence[Placement], devices: Sequence[Device], standing: Sequence[Placement]) -> dict[str, int]:
    """Bytes that are too few, by device."""
    taken = bytes_by_device([*standing, *wanted])
    asked = bytes_by_device(wanted)
    return {
        device.name: taken[device.name] - device.free_bytes
        for device in devices
        if asked[device.name] and taken[device.name] > device.free_bytes
    }


def _placed(view: View, contexts: int, options: PlanOptions) -> Placement:
    spec, base = view.spec, view.base
    shares = _shares(view, contexts)
    where = listed(["the CPU" if share.device == "cpu" else share.device for share in shares if share.total_bytes])
    size = gigabytes(sum(share.total_bytes for share in shares))
    room = full_contexts(contexts, options)
    return replace(
        base,
        kv_tokens=contexts * spec.context_length,
        shares=shares,
        reason=f"{view.name}: beside its base on {where} ({size}); {room}.",
    )


def _shares(view: View, contexts: int) -> tuple[Share, ...]:
    """One for each of the base's. What lies in the CPU's memory only to travel takes no part."""
    base = view.base
    on_cpu = base.device == "cpu"
    sizes = footprint(view.spec, base.quantisation, "cpu" if on_cpu else "cuda")
    offloaded = base.is_spread and base.shares[-1].device == "cpu"
    at_work = base.shares[:1] if offloaded else base.shares
    working = sizes.steps_bytes(contexts) + (0 if on_cpu else VIEW_GPU_BYTES)
    working += sizes.visit_bytes if offloaded else 0
    had = base.kv_tokens // view.spec.context_length
    weights = _weights(view, at_work)
    shares = [
        replace(share, weight_bytes=size, kv_bytes=contexts * -(-share.kv_bytes // had), working_bytes=working)
        for share, size in zip(at_work, weights, strict=True)
    ]
    idle = [replace(share, weight_bytes=0, kv_bytes=0, working_bytes=0) for share in base.shares[len(at_work) :]]
    return (*shares, *idle)


def _weights(view: View, shares: Sequence[Share]) -> list[int]:
    """The adapter's bytes by share, in the precision of the base's arithmetic.

    Where it does not change all of its layers alike, each share is given the whole of it, to be on the safe side.
    """
    facts = view.adapter.facts
    whole = facts.parameters * BYTES[view.base.dtype]
    layers = _layers(facts)
    if len(shares) == 1 or not layers:
        return [whole] * len(shares)
    counts = [sum(share.first_layer <= layer <= share.last_layer for layer in layers) for share in shares]
    return [-(-whole * count // len(layers)) for count in counts]


def _layers(facts: AdapterFacts) -> list[int]:
    """The blocks that the adapter changes; none where it changes them in different ways, or anything else."""
    changed: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    for name in facts.target_modules:
        number = LAYER.search(name)
        if number is None:
            return []
        changed[int(number[1])].add((name[number.end() :], facts.rank_pattern.get(name, facts.r)))
    ways = list(changed.values())
    return sorted(changed) if all(way == ways[0] for way in ways) else []

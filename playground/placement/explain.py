"""Says in one sentence where a model is and why. Called by `planner`; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.spec import ModelSpec
from playground.placement.footprint import footprint
from playground.placement.plan import Device, Placement, PlanOptions, Share


def gigabytes(size: int) -> str:
    """Bytes in units of 10^9, as the catalog gives them: "21.5 GB"."""
    return f"{size / 1e9:.1f} GB"


def listed(items: Sequence[str], word: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return f" {word} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def reason(
    placement: Placement, spec: ModelSpec, devices: Sequence[Device], options: PlanOptions, *, alone: bool
) -> str:
    """The sentence, such as "KULLM3: layers 0-29 on cuda:0, 30-47 on cuda:1, because 21.5 GB fit on neither; room for 4
    full contexts."

    `alone`: whether no other model is, or comes, on these devices.
    """
    gpus = [device for device in devices if device.kind == "cuda"]
    on_cpu = all(share.device not in {gpu.name for gpu in gpus} for share in placement.shares)
    if on_cpu:
        where, because = f"whole on the CPU in float32 ({gigabytes(placement.total_bytes)})", _why_cpu(gpus, options)
    else:
        where = _where(placement, {gpu.name for gpu in gpus}) + _bits(placement, options)
        because = [*_why_bits(placement, spec, gpus, options, alone), *_why_here(placement, spec, gpus)]
    because_of = f", because {listed(because)}" if because else ""
    room = full_contexts(placement.kv_tokens // spec.context_length, options)
    return f"{spec.name}: {where}{because_of}; {room}."


def full_contexts(count: int, options: PlanOptions) -> str:
    """ "room for 2 full contexts instead of 4"."""
    wanted = f" instead of {options.contexts}" if count < options.contexts else ""
    return f"room for {count} full context{'s' * (count > 1)}{wanted}"


def _where(placement: Placement, gpus: set[str]) -> str:
    first, *others = placement.shares
    if not others:
        return f"whole on {first.device} ({gigabytes(placement.total_bytes)})"
    if others[-1].device not in gpus:
        return (
            f"{_first_layers(first)} on {first.device}, {_layers(others[-1])} in the CPU's memory, from where they "
            f"travel to {first.device} for every token"
        )
    return ", ".join([f"{_first_layers(first)} on {first.device}", *(f"{_layers(s)} on {s.device}" for s in others)])


def _first_layers(share: Share) -> str:
    return f"layer{'s' * (share.last_layer > 0)} {_layers(share)}"


def _layers(share: Share) -> str:
    return f"{share.first_layer}-{share.last_layer}" if share.last_layer > share.first_layer else str(share.first_layer)


def _bits(placement: Placement, options: PlanOptions) -> str:
    asked = ", as asked" if placement.quantisation == options.quantisation else ""
    return "" if placement.quantisation == "none" else f" with {placement.quantisation} weights{asked}"


def _why_bits(
    placement: Placement, spec: ModelSpec, gpus: Sequence[Device], options: PlanOptions, alone: bool
) -> list[str]:
    """Why the weights are not as the user would expect them."""
    asked = options.quantisation
    if asked in ("8-bit", "4-bit"):
        return [] if asked == placement.quantisation else [f"its catalog entry allows no {asked} weights"]
    if placement.quantisation == "none":
        return []
    unquantised = footprint(spec)
    together = sum(gpu.free_bytes for gpu in gpus)
    beside = " beside the other models" if unquantised.whole_bytes(1) <= together and not alone else ""
    return [f"{gigabytes(_weights(spec))} at 16 bits do not fit{beside}"]


def _why_here(placement: Placement, spec: ModelSpec, gpus: Sequence[Device]) -> list[str]:
    """Why the model is in parts."""
    if not placement.is_spread:
        return []
    needed = footprint(spec, placement.quantisation).whole_bytes(1)
    roomiest = max(gpu.free_bytes for gpu in gpus)
    if needed <= roomiest:
        return [f"no GPU has {gigabytes(needed)} left"]
    size = gigabytes(placement.weight_bytes) if placement.weight_bytes > roomiest else f"{gigabytes(needed)} with cache"
    if len(gpus) == 1:
        return [f"{size} do not fit on {gpus[0].name}"]
    return [f"{size} fit on {'neither' if len(gpus) == 2 else 'no single GPU'}"]


def _why_cpu(gpus: Sequence[Device], options: PlanOptions) -> list[str]:
    unquantised = ["quantised weights need a GPU"] if options.quantisation in ("8-bit", "4-bit") else []
    return ["no GPU has room and it is small enough for the CPU" if gpus else "there is no GPU", *unquantised]


def _weights(spec: ModelSpec) -> int:
    sizes = footprint(spec)
    return sizes.first_bytes + sizes.layers * sizes.block_bytes + sizes.last_bytes

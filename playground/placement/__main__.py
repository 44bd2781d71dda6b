"""`python -m playground.placement` prints where models would go, on this machine or on an imagined one."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.errors import PlacementError, PlaygroundError
from playground.placement.advice import REPORTED, card
from playground.placement.plan import Device, PlacementPlan, PlanOptions, QuantisationChoice, bytes_by_device
from playground.placement.planner import plan
from playground.placement.quantising import INSTALL, quantisation_available

MODELS = "krutrim-1-instruct,kullm3"
CPU_GIB = 32.0
COLUMNS = ("model", "device", "layers", "weights as", "weights", "KV cache", "working", "sum", "contexts")
GPU = re.compile(r"(?:(?P<count>\d{1,2})x)?(?P<gib>\d+(?:\.\d+)?)(?:-(?P<used>\d+(?:\.\d+)?))?")
UNITS = (
    "Sizes are in GB of 10^9 bytes. Imagined GPUs are named in GiB, as cards are, and have "
    f"{REPORTED:.0%} of that free;\nthose with ECC on GDDR memory (T4, L4, A10G, L40S) have about 94%: "
    "name them by what they report, such as 22.5."
)

IMAGINED = f"An imagined machine has bitsandbytes for quantised weights (`{INSTALL}`)."


def main(arguments: Sequence[str] | None = None) -> int:
    """0: there is a plan; 1: there is none; 2: the question is wrong."""
    asked = _parser().parse_args(arguments)
    imagined = asked.gpus is not None or asked.cpu_gb is not None
    options = PlanOptions(asked.contexts, asked.quantise, asked.offload, imagined or quantisation_available())
    try:
        registry = Registry.load(*asked.catalog)
        specs = [registry.get(name) for name in asked.models]
        devices = _imagined(asked.gpus or [], asked.cpu_gb) if imagined else _real()
        print(report(plan(specs, devices, options), specs, devices))
        print(f"{UNITS}\n{IMAGINED}" if imagined else UNITS)
    except PlaygroundError as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, PlacementError) else 2
    return 0


def report(found: PlacementPlan, specs: Sequence[ModelSpec], devices: Sequence[Device]) -> str:
    """A table of what each model takes where, what is left of each device, and the sentences."""
    rows = [COLUMNS, *_rows(found, specs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    taken = bytes_by_device(found.placements)
    used = [f"{device.name}: {_gb(taken[device.name])} of {_gb(device.free_bytes)} GB taken" for device in devices]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], "", *used, "", *found.sentences, ""])


def _rows(found: PlacementPlan, specs: Sequence[ModelSpec]) -> list[tuple[str, ...]]:
    length = {spec.id: spec.context_length for spec in specs}
    return [
        (
            placement.model_id,
            share.device,
            f"{share.first_layer}-{share.last_layer}",
            placement.dtype if placement.quantisation == "none" else placement.quantisation,
            *map(_gb, (share.weight_bytes, share.kv_bytes, share.working_bytes, share.total_bytes)),
            str(placement.kv_tokens // length[placement.model_id]),
        )
        for placement in found.placements
        for share in placement.shares
    ]


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"


def _real() -> Sequence[Device]:
    from playground.placement.devices import find_devices  # imports torch

    return find_devices()


def _imagined(gpus: list[tuple[float, float]], cpu_gib: float | None) -> Sequence[Device]:
    cpu = int((CPU_GIB if cpu_gib is None else cpu_gib) * 2**30)
    cards = [card(f"cuda:{index}", gib, used) for index, (gib, used) in enumerate(gpus)]
    return [*cards, Device("cpu", "cpu", cpu, cpu)]


def _gpus(text: str) -> list[tuple[float, float]]:
    """ "24,2x16,80-30" to (GiB, GiB in use) for each card; "none" for no card."""
    cards: list[tuple[float, float]] = []
    for part in [] if text.strip().lower() == "none" else text.split(","):
        match = GPU.fullmatch(part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(
                f"write sizes in GB such as 24,24 or 4x16, 80-30 for a card of 80 with 30 in use, or none, not {part!r}"
            )
        count, gib, used = int(match["count"] or 1), float(match["gib"]), float(match["used"] or 0)
        if not count or not gib:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is no card: for a machine without GPUs write none")
        if used > gib:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is a card with more memory in use than it has")
        cards += count * [(gib, used)]
    return cards


def _models(text: str) -> list[str]:
    models = [name.strip() for name in text.split(",") if name.strip()]
    if not models:
        raise argparse.ArgumentTypeError(f"give model ids separated by commas, not {text!r}")
    return models


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"give a number from 1 to 1000, not {text!r}")
    return int(text)


def _gib(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"give a size in GB, not {text!r}")
    return float(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m playground.placement", description=__doc__, epilog=f"{UNITS} {IMAGINED}"
    )
    parser.add_argument("--gpus", type=_gpus, help="imagined GPUs: 24,24 or 4x16 or 80-30 (30 in use) or none")
    parser.add_argument("--cpu-gb", type=_gib, help=f"free memory of the imagined CPU (default: {CPU_GIB:.0f})")
    parser.add_argument("--models", type=_models, default=MODELS, help=f"ids and commas (default: {MODELS})")
    parser.add_argument("--catalog", type=Path, action="append", default=[], metavar="FILE", help="add this TOML file")
    parser.add_argument("--contexts", type=_count, default=PlanOptions().contexts, help="full contexts wanted for each")
    parser.add_argument("--quantise", choices=get_args(QuantisationChoice), default="auto")
    parser.add_argument("--offload", action="store_true", help="allow layers in the CPU's memory")
    return parser


if __name__ == "__main__":
    sys.exit(main())

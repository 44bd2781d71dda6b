"""The tensors of an adapter against the layers it changes: names and shapes from the header, values in small slices.

Called by the inspection. Knows no config and holds no tensor in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from playground.adapters.facts import BaseLayers
from playground.adapters.files import shown
from playground.adapters.header import FLOAT_BYTES, WEIGHTS, TensorEntry
from playground.adapters.targets import Target, fused
from playground.errors import AdapterError

PREFIX = "base_model.model."
SLICE_BYTES = 1 << 20

# Without its sign bit, a float is the larger the larger its bits are, infinity and NaN above all numbers.
LARGEST = {"F32": 0x477FE000, "F16": 0x7BFF, "BF16": 0x477F}
"""Bits of 65,504, the largest number of float16 (in bfloat16 the largest below it): some models run in float16."""
INFINITE = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def check_names_and_shapes(
    entries: Sequence[TensorEntry], targets: Sequence[Target], r_pattern: bool, base: BaseLayers
) -> None:
    """Whether the file holds lora_A and lora_B of every target and nothing else.

    Args:
        entries: the tensors of the file.
        targets: the layers that the config means.
        r_pattern: whether ranks come from `rank_pattern` too, for the sentence.
        base: the model's layers.

    Raises:
        AdapterError: a tensor is missing, one too many, or has another shape.
    """
    held = {entry.name: entry for entry in entries}
    expected = {name: (target, shape) for target in targets for name, shape in _shapes(target)}
    for name, (target, _) in expected.items():
        if name not in held:
            half = name.split(".")[-2]
            raise AdapterError(f"{WEIGHTS} has no {half} for the layer {shown(target.name)}: {shown(name)} is missing.")
    if extra := sorted(set(held) - set(expected)):
        reason = fused(base, extra[0]) or _replaces(extra[0])
        raise AdapterError(
            f"{WEIGHTS} holds {shown(extra[0], 120)}, which adapter_config.json does not call for{reason}."
        )
    for name, (target, shape) in expected.items():
        if held[name].shape != shape:
            field = "`r` or `rank_pattern`" if r_pattern else "`r`"
            raise AdapterError(
                f"{WEIGHTS}: {shown(name, 120)} has shape {list(held[name].shape)}, but rank {target.r} ({field} in "
                f"adapter_config.json) and the layer's {target.in_features} inputs and {target.out_features} outputs "
                f"need {list(shape)}."
            )


def check_values(file: BinaryIO, entries: Sequence[TensorEntry]) -> str:
    """Reads every value once, a megabyte at a time; the SHA-256 of the whole file, in hex.

    Raises:
        AdapterError: a value is not finite, or beyond what float16 holds.
    """
    file.seek(0)
    digest = hashlib.sha256(file.read(entries[0].begin))
    for entry in entries:
        for content in _slices(file, entry):
            digest.update(content)
            _check_slice(content, entry)
    return digest.hexdigest()


def _shapes(target: Target) -> tuple[tuple[str, tuple[int, int]], ...]:
    stem = f"{PREFIX}{target.name}"
    return (
        (f"{stem}.lora_A.weight", (target.r, target.in_features)),
        (f"{stem}.lora_B.weight", (target.out_features, target.r)),
    )


def _replaces(name: str) -> str:
    if ".lora_" in name:
        return ""
    return ": it would replace weights of the base itself. Save the adapter with save_embedding_layers=False"


def _slices(file: BinaryIO, entry: TensorEntry) -> Iterator[bytes]:
    left = entry.end - entry.begin
    while left:
        content = file.read(min(left, SLICE_BYTES))
        if not content:
            raise AdapterError(f"{WEIGHTS} became shorter while it was read: try again.")
        left -= len(content)
        yield content


def _check_slice(content: bytes, entry: TensorEntry) -> None:
    width = FLOAT_BYTES[entry.dtype]
    bits = np.frombuffer(content, dtype=f"<u{width}") & ((1 << (8 * width - 1)) - 1)
    largest = int(bits.max())
    if largest <= LARGEST[entry.dtype]:
        return
    what = "NaN or infinity" if largest >= INFINITE[entry.dtype] else "a number beyond 65,504, the limit of float16"
    raise AdapterError(f"{WEIGHTS}: {shown(entry.name, 120)} holds {what}: the adapter is damaged.")

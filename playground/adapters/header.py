"""The header of a safetensors file: which tensors it holds and where, read without reading them.

Checks that the header is small, that it describes the whole file and that no two tensors share bytes.
Called by the inspection. Knows nothing of adapters' names and shapes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from playground.adapters.facts import Limits
from playground.adapters.files import parse_object, shown
from playground.errors import AdapterError

WEIGHTS = "adapter_model.safetensors"
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MAX_DIMENSIONS = 8
MAX_COUNT = 1 << 48


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """`begin`, `end`: bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, limits: Limits) -> tuple[TensorEntry, ...]:
    """The tensors of a file, in the order of their bytes; reads the header only.

    Raises:
        AdapterError: the file is too large, is truncated, or its header is not sound.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limits.weight_bytes:
        raise AdapterError(f"{WEIGHTS} takes {size:,} bytes, more than the {limits.weight_bytes:,} that are allowed.")
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or (length > size - 8 and length <= limits.header_bytes):
        raise AdapterError(f"{WEIGHTS} is cut off: it ends within its header. Download or copy it again.")
    if length > limits.header_bytes:
        raise AdapterError(
            f"{WEIGHTS} claims a header of {length:,} bytes, more than the {limits.header_bytes:,} that are allowed: "
            "it is damaged, or made to fill the memory."
        )
    content = file.read(length)
    if not content.startswith(b"{"):
        raise AdapterError(f"{WEIGHTS} has no safetensors header: it is no safetensors file.")
    raw = parse_object(content, f"{WEIGHTS}: its header")
    _check_metadata(raw.pop("__metadata__", {}))
    entries = sorted((_entry(name, value, 8 + length) for name, value in raw.items()), key=lambda e: (e.begin, e.end))
    _check_whole(entries, 8 + length, size)
    return tuple(entries)


def _check_metadata(value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise AdapterError(f"{WEIGHTS}: `__metadata__` in its header is not a table of texts.")


def _entry(name: str, value: Any, start: int) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise AdapterError(f"{WEIGHTS}: {shown(name)} must have dtype, shape and data_offsets and nothing else.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in FLOAT_BYTES:
        raise AdapterError(f"{WEIGHTS}: {shown(name)} has dtype {shown(dtype)}, but must be F32, F16 or BF16.")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise AdapterError(f"{WEIGHTS}: {shown(name)} has a shape that is none, {shown(shape)}.")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise AdapterError(f"{WEIGHTS}: {shown(name)} has data_offsets that are none, {shown(offsets)}.")
    if offsets[1] - offsets[0] != math.prod(shape) * FLOAT_BYTES[dtype]:
        raise AdapterError(f"{WEIGHTS}: {shown(name)} has not the bytes that its shape {shown(shape)} needs.")
    return TensorEntry(name, dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_COUNT for item in value)


def _check_whole(entries: list[TensorEntry], start: int, size: int) -> None:
    place = start
    for entry in entries:
        if entry.begin != place:
            how = "overlaps the tensor before it" if entry.begin < place else "leaves a gap before it"
            raise AdapterError(f"{WEIGHTS}: {shown(entry.name)} {how}.")
        place = entry.end
    if place > size:
        raise AdapterError(
            f"{WEIGHTS} is cut off: {shown(entries[-1].name)} ends at byte {place:,}, but the file has {size:,}. "
            "Download or copy it again."
        )
    if place < size:
        raise AdapterError(f"{WEIGHTS} has {size - place:,} bytes at its end that belong to no tensor.")

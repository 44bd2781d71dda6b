"""Cuts models into runs of layers over several devices.

The devices stand in a line, the one with the most room first, and so do the models: each model goes on where the one
before it ended, and fills a device before it enters the next. More memory on any device then never makes a cut
impossible, for whatever stood on the n-th device still fits on the n-th; and as many devices as are needed are the
first ones of the line, none else. Used by the search for a place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from playground.placement.footprint import Footprint

EVENLY_TO = 1 << 20
"""Bytes to which the room left over is levelled between devices."""

Room = tuple[str, int]
"""A device and its free bytes."""


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks `first` to `last`, both included."""

    device: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Part:
    """A model to be spread, with the number of full contexts that it gets."""

    footprint: Footprint
    contexts: int


def devices_needed(parts: Sequence[Part], free: Mapping[str, int]) -> tuple[str, ...] | None:
    """As few devices as will do, in the order of the line; None where all do not suffice."""
    line = sorted(free.items(), key=lambda room: -room[1])
    least = sum(part.footprint.whole_bytes(part.contexts) for part in parts)
    together = 0
    for count, (_, room) in enumerate(line, 1):
        together += max(room, 0)
        if together >= least and _cut(parts, line[:count]) is not None:
            return tuple(device for device, _ in line[:count])
    return None


def fits(parts: Sequence[Part], free: Mapping[str, int]) -> bool:
    """Whether the parts can be cut over all of these devices."""
    return not parts or devices_needed(parts, free) is not None


def cut_evenly(parts: Sequence[Part], free: Mapping[str, int]) -> list[tuple[Run, ...]]:
    """Runs for each part, with as much room left over on every device alike as there can be.

    In the order of `free` where they fit so, else in the order of the line, in which they must fit.
    """
    line = sorted(free.items(), key=lambda room: -room[1])
    rooms = list(free.items()) if _cut(parts, list(free.items())) is not None else line
    low, high = 0, max(free.values())
    while high - low > EVENLY_TO:
        middle = (low + high) // 2
        low, high = (low, middle) if _cut(parts, rooms, middle) is None else (middle, high)
    found = _cut(parts, rooms, low)
    assert found is not None, "only what fits is cut"
    return found


def _cut(parts: Sequence[Part], rooms: Sequence[Room], spare: int = 0) -> list[tuple[Run, ...]] | None:
    """Runs for each part, `spare` bytes left free on each device; None where they do not fit in this order."""
    free = [room - spare for _, room in rooms]
    cuts, place = [], 0
    for part in parts:
        runs: list[Run] = []
        done = 0
        while done < part.footprint.layers:
            if place == len(rooms):
                return None
            count, taken = _fill(part, done, free[place])
            if count:
                runs.append(Run(rooms[place][0], done, done + count - 1))
                free[place] -= taken
                done += count
            place += done < part.footprint.layers
        cuts.append(tuple(runs))
    return cuts


def _fill(part: Part, done: int, free: int) -> tuple[int, int]:
    """How many blocks from `done` on fit into `free` bytes, and what they take."""
    sizes = part.footprint
    layer, left = sizes.layer_bytes(part.contexts), sizes.layers - done
    beside = sizes.working_bytes(part.contexts) + (sizes.first_bytes if done == 0 else 0)
    count = min((free - beside) // layer, left)
    if count == left and beside + left * layer + sizes.last_bytes > free:
        count -= 1  # the last block waits for a device that has room for the head too
    if count < 1:
        return 0, 0
    return count, beside + count * layer + (sizes.last_bytes if count == left else 0)

"""How much memory a container leaves its programs: psutil tells of the whole machine, of which it may have a part.

Reads Linux' control groups, of either version; elsewhere there is nothing to read. Called by `devices`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
VERSIONS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Of version 2, then of version 1: the limit, what is taken, and of what kinds that is."""


def container_memory(total: int, available: int, root: Path = CGROUPS) -> tuple[int, int]:
    """Bytes in all, and bytes that can still be taken, of a machine with so many, as far as the container lets them.

    What is taken counts without the file cache that the kernel gives up first.
    """
    for limit_file, used_file, stat_file in VERSIONS:
        with suppress(OSError, ValueError):
            limit = int((root / limit_file).read_text())  # "max" is no number
            used = int((root / used_file).read_text()) - _inactive(root / stat_file)
            return min(total, limit), max(0, min(available, limit - used))
    return total, available


def _inactive(stat: Path) -> int:
    lines = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    return int(lines.get("total_inactive_file", lines.get("inactive_file", "0")))

"""What a container leaves of the machine's memory, by the files of Linux' control groups, of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from playground.placement.containers import container_memory

TOTAL, AVAILABLE = 128 * 2**30, 100 * 2**30
V2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
V1 = (
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
    "memory/memory.stat",
    "total_inactive_file",
)


def write(root: Path, names: tuple[str, ...], limit: object, used: int, cache: int) -> Path:
    for name, content in zip(names[:3], (limit, used, f"anon 1\n{names[3]} {cache}"), strict=True):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.mark.parametrize("names", [V2, V1])
def test_the_container_says_what_there_is(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, names, 16 * 2**30, 5 * 2**30, 2 * 2**30)
    assert container_memory(TOTAL, AVAILABLE, root) == (16 * 2**30, 13 * 2**30)


@pytest.mark.parametrize("names", [V2, V1])
def test_a_full_container_has_nothing_left(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, names, 16 * 2**30, 17 * 2**30, 0)
    assert container_memory(TOTAL, AVAILABLE, root) == (16 * 2**30, 0)


def test_the_machine_may_have_less_than_the_container_allows(tmp_path: Path) -> None:
    root = write(tmp_path, V1, 2**63 - 4096, 5 * 2**30, 0)
    assert container_memory(TOTAL, AVAILABLE, root) == (TOTAL, AVAILABLE)


def test_without_a_limit_the_machine_has_the_word(tmp_path: Path) -> None:
    assert container_memory(TOTAL, AVAILABLE, tmp_path) == (TOTAL, AVAILABLE)
    assert container_memory(TOTAL, AVAILABLE, write(tmp_path, V2, "max", 1, 0)) == (TOTAL, AVAILABLE)

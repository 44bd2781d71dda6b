"""A user's catalog file with something else in it, for tests of what is wrong with such a file."""

from __future__ import annotations

from pathlib import Path


def rewrite(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path

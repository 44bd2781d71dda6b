"""Opening a stranger's files: only regular files inside their folder, without ever waiting for one.

Called by the inspection. Knows nothing of what is in the files.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from playground.errors import AdapterError
from playground.types import half_character

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# Without waiting for the other end of a pipe, and without following a link that came after it was looked at.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
PATH_ERRORS = (OSError, ValueError, RuntimeError)
"""What pathlib raises: the system's refusals, characters that no path has, and circles of links."""


def shown(value: object, limit: int = 80) -> str:
    """A stranger's value for a sentence: short, and without characters that are not seen or change what is seen."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def adapter_folder(folder: Path) -> Path:
    """The real place of a folder.

    Raises:
        AdapterError: there is no such folder, or its path goes up with `..`.
    """
    if ".." in folder.parts:
        raise AdapterError(f"The path {shown(str(folder))} goes up with '..': give the adapter's folder directly.")
    try:
        real = folder.resolve(strict=True)
    except PATH_ERRORS as error:
        raise AdapterError(f"There is no adapter folder {shown(str(folder))}: correct the path.") from error
    if not real.is_dir():
        raise AdapterError(f"{shown(str(folder))} is no folder: give the folder that holds adapter_config.json.")
    return real


def pickles(folder: Path) -> list[str]:
    """Names of the files in a folder that could hold pickles, which can run code when they are read."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(PICKLES))
    except OSError as error:
        raise AdapterError(f"{shown(str(folder))} cannot be read: {error.strerror}.") from error


@contextmanager
def open_inside(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A regular file of a folder, open for reading; `folder` is a real path.

    Raises:
        AdapterError: it is missing, unreadable, no regular file, or a link that leaves the folder.
    """
    try:
        real = (folder / name).resolve(strict=True)
    except FileNotFoundError as error:
        raise AdapterError(f"{name} is missing from the adapter's folder {shown(str(folder))}.") from error
    except PATH_ERRORS as error:
        raise AdapterError(f"{name} cannot be read: {shown(str(error))}.") from error
    if not real.is_relative_to(folder):
        raise AdapterError(f"{name} is a link out of the adapter's folder: put the file itself there.")
    try:
        with os.fdopen(_open_regular(real, name), "rb") as file:
            yield file
    except OSError as error:
        raise AdapterError(f"{name} cannot be read: {error.strerror}.") from error


def _open_regular(real: Path, name: str) -> int:
    """A file descriptor; looks before it opens, since to open a device can already do something."""
    regular = stat.S_ISREG(os.lstat(real).st_mode)
    descriptor = os.open(real, OPEN_FLAGS) if regular else -1
    if regular and not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        regular = False
    if not regular:
        raise AdapterError(f"{name} is no regular file but a folder, pipe or device: it was not opened.")
    return descriptor


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object as a dict. Stricter than Python: no key twice, no NaN, no half a character, no nesting too deep.

    Raises:
        AdapterError: it is none; the sentence begins with `what`.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        half = half_character(json.dumps(value, ensure_ascii=False))
    except RecursionError as error:
        raise AdapterError(f"{what} is nested too deeply to be an adapter's.") from error
    except ValueError as error:
        raise AdapterError(f"{what} is no valid JSON: {shown(str(error), 120)}.") from error
    if half:
        raise AdapterError(f"{what}: {half}.")
    if not isinstance(value, dict):
        raise AdapterError(f"{what} is no JSON object: it should begin with a brace.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"the key {shown(name)} is there twice")
        table[name] = value
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")

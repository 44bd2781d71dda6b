"""The folders that the app was started with (`--adapters`): which adapters lie there, and for which model they are.

Reads nothing but adapter_config.json, as a stranger's file, and judges nothing: an adapter that cannot be read is
listed too, and choosing it says why. Called by the library.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.config import CONFIG
from playground.adapters.facts import AdapterChoice, Limits
from playground.adapters.files import PATH_ERRORS, adapter_folder, open_inside, parse_object, shown
from playground.errors import AdapterError

CONFIG_BYTES = Limits().config_bytes

JOINERS = "\u200c\u200d"
"""Invisible, but a part of words in the scripts of India."""

log = logging.getLogger(__name__)


class Shelves:
    """folders: each an adapter, or a folder of adapters."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        for folder in self._found():
            if not _can_be_written(folder):
                log.warning("rename the folder %s: no menu can list it", ascii(str(folder)))

    def choices(self, spec: ModelSpec, registry: Registry) -> Iterator[AdapterChoice]:
        """The adapters here, without those that name another model of the catalog as their base."""
        models = _models_by_name(registry)
        for folder in self.adapters():
            base = _base_name(folder)
            owners = models.get((base or "").rstrip("/").lower(), ())
            if not owners or spec.id in owners:
                yield AdapterChoice(str(folder), folder.name, _about(base))

    def adapters(self) -> Iterator[Path]:
        """Every folder here that has an adapter_config.json, whatever that is, and a name that can be written."""
        yield from filter(_can_be_written, self._found())

    def _found(self) -> Iterator[Path]:
        for shelf in self._folders:
            if _is_adapter(shelf):
                yield shelf
            else:
                yield from filter(_is_adapter, _folders_in(shelf))

    def holds(self, folder: Path) -> bool:
        """Whether an absolute path leads to one of the folders or into it; links that lie there may lead out of it."""
        try:
            real = folder.resolve()
        except PATH_ERRORS:
            return False
        return any(path.is_relative_to(shelf) for shelf in self._folders for path in (folder, real))


def _models_by_name(registry: Registry) -> dict[str, set[str]]:
    models: dict[str, set[str]] = {}
    for spec in registry:
        for name in spec.names:
            models.setdefault(name.lower(), set()).add(spec.id)
    return models


def _base_name(folder: Path) -> str | None:
    """The model that an adapter says it was trained on, "" where it does not; None where it cannot be read."""
    try:
        with open_inside(adapter_folder(folder), CONFIG) as file:
            content = file.read(CONFIG_BYTES + 1)
        base = parse_object(content, CONFIG).get("base_model_name_or_path") or ""
    except AdapterError:
        return None
    return base if isinstance(base, str) and len(content) <= CONFIG_BYTES else None


def _about(base: str | None) -> str:
    if base is None:
        return f"Its {CONFIG} cannot be read."
    return f"It was trained on {shown(base)}." if base else ""


def _can_be_written(folder: Path) -> bool:
    """Whether its path is what a menu shows and a person can type: no half characters, controls or outer spaces."""
    text = str(folder)
    return text == text.strip() and all(letter.isprintable() or letter in JOINERS for letter in text)


def _is_adapter(folder: Path) -> bool:
    return os.path.lexists(folder / CONFIG)


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []

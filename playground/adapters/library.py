"""Every adapter that a user can have: those of the catalog, of the Hub, and of folders; found and inspected here.

Choosing is checking: what comes back was inspected for its model, and a refusal is a sentence. Called by the pool, from
threads, for it waits for the Hub and for files. Knows no engine and no UI.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from model_registry.registry import Registry
from model_registry.spec import AdapterSpec, ModelSpec
from playground.adapters.config import CONFIG
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.adapters.fetch import COMMIT, AdapterStore
from playground.adapters.files import adapter_folder, shown
from playground.adapters.header import WEIGHTS
from playground.adapters.inspect import inspect_adapter
from playground.adapters.known_layers import FindLayers
from playground.adapters.naming import FORMS, FolderName, HubName, parse_name
from playground.adapters.shelves import Shelves
from playground.errors import AdapterError

FINGERPRINT = "sha256:"
REMEMBERED = 64
"""Adapters whose facts are kept: a few kilobytes each."""

Stamp = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """An adapter's id and name, and where it comes from: a place on the Hub, or a folder."""

    id: str
    name: str
    place: HubName | Path


@dataclass(frozen=True, slots=True)
class _Known:
    checked: CheckedAdapter
    stamp: Stamp


class AdapterLibrary:
    """Finds adapters and inspects them. May be asked from many threads at once.

    folders: listed for every model that they may be for; each an adapter, or a folder of adapters.
    store: for adapters of the Hub.
    layers: the layers of a model.
    typed_folders: whether any folder of this machine may be named, and not only those listed.
    typed_hub: whether any adapter of the Hub may be named, each of which takes room on this machine's disk.
    """

    def __init__(
        self,
        registry: Registry,
        folders: Sequence[Path],
        store: AdapterStore,
        layers: FindLayers,
        *,
        typed_folders: bool,
        typed_hub: bool = True,
    ) -> None:
        self._registry = registry
        self._shelves = Shelves(folders)
        self._store = store
        self._layers = layers
        self._typed_folders = typed_folders
        self._typed_hub = typed_hub
        self._known: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()
        self._lock = Lock()

    def choices(self, spec: ModelSpec) -> tuple[AdapterChoice, ...]:
        """What can be chosen for a model without typing: the catalog's adapters, then those of the listed folders."""
        ours = self._registry.adapters(spec.id)
        folders = {str(adapter.weights.path.resolve()) for adapter in ours if adapter.weights.path is not None}
        found = [choice for choice in self._shelves.choices(spec, self._registry) if choice.id not in folders]
        return (*(AdapterChoice(adapter.id, adapter.name, adapter.about) for adapter in ours), *found)

    def check(self, spec: ModelSpec, text: str, revision: str = "") -> CheckedAdapter:
        """An adapter, inspected for a model.

        Args:
            spec: the model that it shall run on.
            text: an id of the catalog, `owner/name[@revision]` or a page of the Hub, or a folder's path.
            revision: of the very adapter that is wanted, as a CheckedAdapter has it; what was checked a moment ago is
                not inspected again. Without it the adapter is taken as it is now.

        Raises:
            AdapterError: there is no such adapter, it must not be loaded, or it is not the one that is wanted.
            DownloadError: the Hub did not give it, or the model's config.json.
            CheckpointError: the model's config.json describes no model.
        """
        source = self._source(text)
        if revision and (before := self.remembered(spec, source.id, revision)):
            return before
        known = self._inspect(spec, source, revision)
        if revision and known.checked.revision != revision:
            raise AdapterError(f"The adapter {shown(source.id)} has changed since it was chosen: choose it again.")
        self._remember(known)
        return known.checked

    def remembered(self, spec: ModelSpec, adapter_id: str, revision: str) -> CheckedAdapter | None:
        """What was checked before, if its files are as they were then; never waits, for they are not read."""
        with self._lock:
            known = self._known.get((spec.id, adapter_id, revision))
        return known.checked if known and known.stamp == _stamp(known.checked.folder) else None

    def _source(self, text: str) -> _Source:
        match parse_name(text):
            case HubName() as place:
                self._require_hub(place)
                return _Source(place.id, place.id, place)
            case FolderName() as written:
                folder = self._permitted(written)
                return _Source(str(folder), folder.name, folder)
            case name:
                return _catalogued(self._catalog_entry(name.id))

    def _catalog_entry(self, adapter_id: str) -> AdapterSpec:
        try:
            return self._registry.adapter(adapter_id)
        except AdapterError as error:
            raise AdapterError(f"{error} To name another one: {FORMS}.") from error

    def _permitted(self, written: FolderName) -> Path:
        """The folder, where it may be looked at; nothing is told of any other, not even whether it is there."""
        if self._typed_folders:
            return written.place()
        with suppress(AdapterError):
            if self._shelves.holds(folder := written.place()):
                return folder
        raise AdapterError(
            f"The folder {shown(written.path)} cannot be used here: others may open this page, so it has only the "
            "folders that app.py was started with. Start it with --adapters and this folder."
        )

    def _require_hub(self, place: HubName) -> None:
        if not self._typed_hub:
            raise AdapterError(
                f"{shown(place.id)} cannot be used here: this page is for strangers, so it has only the adapters that "
                "it was started with. Add it to the catalog, or start the page without limits."
            )

    def _inspect(self, spec: ModelSpec, source: _Source, revision: str) -> _Known:
        if isinstance(source.place, HubName):
            if revision and not COMMIT.fullmatch(revision):
                raise AdapterError(f"{shown(revision)} is no commit of {source.place.id}: choose the adapter again.")
            wanted = revision or source.place.revision
            fetched = self._store.fetch(source.place.id, self._layers(spec), wanted)
            folder, facts, found, stamp = fetched.folder, fetched.facts, fetched.commit, _stamp(fetched.folder)
        else:
            folder = adapter_folder(source.place)
            stamp = _stamp(folder)  # before it is read, so that a change meanwhile is seen later
            facts = inspect_adapter(folder, self._layers(spec))
            found = FINGERPRINT + facts.fingerprint
        return _Known(CheckedAdapter(source.id, source.name, found, spec.id, folder, facts), stamp)

    def _remember(self, known: _Known) -> None:
        checked = known.checked
        key = (checked.model_id, checked.id, checked.revision)
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


def _catalogued(entry: AdapterSpec) -> _Source:
    place = entry.weights
    if place.path is not None:
        return _Source(entry.id, entry.name, place.path.resolve())
    return _Source(entry.id, entry.name, HubName(str(place.hub), place.revision))


def _stamp(folder: Path) -> Stamp:
    """What changes when an adapter's files do, without reading them; empty where they cannot be looked at."""
    try:
        found = [os.stat(folder / name) for name in (CONFIG, WEIGHTS)]
    except OSError:
        return ()
    return tuple((file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns) for file in found)

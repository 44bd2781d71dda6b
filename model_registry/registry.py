"""The catalog in memory: load files (ours, then the user's), find a model by id or alias, and a model's adapters.

Called by everyone who needs to know a model. Knows no tokenizer, no engine and no UI.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_registry.catalog_file import read_catalog_file
from model_registry.spec import AdapterSpec, ModelSpec, ServerSpec
from playground.errors import AdapterError, CatalogError, EngineError, UnknownModelError

CATALOG = Path(__file__).parent / "catalog"


class Registry:
    """Models, adapters and servers by id, in the order of the catalog; case does not matter."""

    def __init__(
        self,
        specs: Iterable[ModelSpec],
        adapters: Iterable[AdapterSpec] = (),
        servers: Iterable[ServerSpec] = (),
    ) -> None:
        self._specs: dict[str, ModelSpec] = {}
        self._ids: dict[str, str] = {}
        self._adapters: dict[str, AdapterSpec] = {}
        self._servers: dict[str, ServerSpec] = {}
        for spec in specs:
            self._add(spec)
        for adapter in adapters:
            self._add_adapter(adapter)
        for server in servers:
            self._add_server(server)

    @classmethod
    def load(cls, *catalog_files: Path) -> Registry:
        """Our catalog, then the user's files; a user's file may replace one of ours by giving the same id.

        Raises:
            CatalogError: a file is wrong, a name belongs to two models, or an adapter or a server names a model
                that is not there.
        """
        ours = [read_catalog_file(path, ours=True) for path in sorted(CATALOG.rglob("*.toml"))]
        users = [read_catalog_file(path) for path in catalog_files]
        replaced = {(type(entry), entry.id) for entry in users}
        entries = [*(entry for entry in ours if (type(entry), entry.id) not in replaced), *users]
        return cls(
            [entry for entry in entries if isinstance(entry, ModelSpec)],
            [entry for entry in entries if isinstance(entry, AdapterSpec)],
            [entry for entry in entries if isinstance(entry, ServerSpec)],
        )

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())

    def get(self, name: str) -> ModelSpec:
        """The model with this id or alias.

        Raises:
            UnknownModelError: there is none; the sentence names near misses.
        """
        model_id = self._ids.get(name.strip().lower())
        if model_id is None:
            raise UnknownModelError(f"There is no model {name!r} in the catalog. {_near(name, self._ids)}")
        return self._specs[model_id]

    def adapters(self, model_id: str | None = None) -> tuple[AdapterSpec, ...]:
        """The adapters that were trained for a model, or all.

        Raises:
            UnknownModelError: there is no such model.
        """
        spec = None if model_id is None else self.get(model_id)
        return tuple(
            adapter
            for adapter in self._adapters.values()
            if spec is None or any(self.get(base) is spec for base in adapter.base_models)
        )

    def adapter(self, adapter_id: str) -> AdapterSpec:
        """The adapter with this id.

        Raises:
            AdapterError: there is none; the sentence names near misses.
        """
        adapter = self._adapters.get(adapter_id.strip().lower())
        if adapter is None:
            near = _near(adapter_id, {key: key for key in self._adapters})
            raise AdapterError(f"There is no adapter {adapter_id!r} in the catalog. {near}")
        return adapter

    def servers(self, model_id: str | None = None) -> tuple[ServerSpec, ...]:
        """The servers that answer for a model, or all.

        Raises:
            UnknownModelError: there is no such model.
        """
        spec = None if model_id is None else self.get(model_id)
        return tuple(each for each in self._servers.values() if spec is None or self.get(each.serves) is spec)

    def server(self, server_id: str) -> ServerSpec:
        """The server with this id.

        Raises:
            EngineError: there is none; the sentence names near misses.
        """
        server = self._servers.get(server_id.strip().lower())
        if server is None:
            near = _near(server_id, {key: key for key in self._servers}) if self._servers else "There are none."
            raise EngineError(f"There is no server {server_id!r} in the catalog. {near}")
        return server

    def _add(self, spec: ModelSpec) -> None:
        for name in (spec.id, *spec.aliases):
            owner = self._ids.setdefault(name.lower(), spec.id)
            if owner != spec.id or spec.id in self._specs:
                raise CatalogError(f"The name {name!r} belongs to two models, {owner!r} and {spec.id!r}: rename one.")
        self._specs[spec.id] = spec

    def _add_adapter(self, adapter: AdapterSpec) -> None:
        if adapter.id in self._adapters:
            raise CatalogError(f"The id {adapter.id!r} belongs to two adapters: rename one.")
        for base in adapter.base_models:
            try:
                self.get(base)
            except UnknownModelError as error:
                raise CatalogError(f"The adapter {adapter.id!r} names an unknown base model. {error}") from error
        self._adapters[adapter.id] = adapter

    def _add_server(self, server: ServerSpec) -> None:
        if server.id in self._servers:
            raise CatalogError(f"The id {server.id!r} belongs to two servers: rename one.")
        try:
            self.get(server.serves)
        except UnknownModelError as error:
            raise CatalogError(f"The server {server.id!r} serves an unknown model. {error}") from error
        self._servers[server.id] = server


def _near(name: str, ids: Mapping[str, str]) -> str:
    """What could have been meant: `ids` by the names that are understood."""
    near = difflib.get_close_matches(name.strip().lower(), ids, n=5, cutoff=0.5)
    meant = list(dict.fromkeys(ids[match] for match in near))
    return f"Did you mean {' or '.join(meant)}?" if meant else f"There are: {', '.join(dict.fromkeys(ids.values()))}."

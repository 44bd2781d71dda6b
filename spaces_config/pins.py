"""At which commit of the Hub a Space takes its models: the line that preloads them and the line that the app obeys.

The Hub preloads a repository at a commit, into the cache that the app reads; the app looks there for the revision of
its catalog. So both must say the same, and `build` writes the commit into the catalog of the folder that it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects

from model_registry.catalog_file import line_of
from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.checkpoints.checkpoint import MODEL_FILES, TOKENIZER_FILES
from playground.hub_errors import Asked, hub_errors
from spaces_config.profile import Preload, Profile

ASK_S = 20.0
FILES = {"all": MODEL_FILES, "tokenizer": [*TOKENIZER_FILES, "config.json"]}
"""What the app fetches of a model, and what it fetches of one that runs elsewhere."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What of a model is preloaded. Unpinned (`commit` None), the Hub takes what the branch holds when it builds.

    files: by name, as the Hub wants them; empty is the whole repository.
    """

    spec: ModelSpec
    commit: str | None = None
    files: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """An entry of `preload_from_hub`: repository, files with commas, commit."""
        return " ".join(filter(None, (str(self.spec.weights.hub), ",".join(self.files), self.commit)))


def unpinned(profile: Profile, registry: Registry) -> tuple[Pin, ...]:
    """Without asking the Hub. What is to be taken of a repository only in part is left out: its files have no names."""
    return tuple(Pin(registry.get(item.model)) for item in profile.preload if item.files == "all")


def resolve(profile: Profile, registry: Registry, api: HfApi) -> tuple[Pin, ...]:
    """The commits that the revisions of the catalog stand for now, and the files that the app would fetch of them.

    Raises:
        DownloadError: the Hub cannot be reached, or has no such repository or revision.
    """
    return tuple(_resolve(item, registry.get(item.model), api) for item in profile.preload)


def _resolve(item: Preload, spec: ModelSpec, api: HfApi) -> Pin:
    with hub_errors(_asked_for(spec)):
        info = api.model_info(str(spec.weights.hub), revision=spec.weights.revision, timeout=ASK_S)
    names = sorted(file.rfilename for file in info.siblings or ())
    return Pin(spec, info.sha, tuple(filter_repo_objects(names, allow_patterns=FILES[item.files])))


def _asked_for(spec: ModelSpec) -> Asked:
    """A model's commit: no file of it comes here."""
    return Asked(
        repo=str(spec.weights.hub),
        revision=spec.weights.revision,
        name=f"The commit of {spec.name}",
        place="this machine",
        lack="is known to the Hub alone",
        right_revision="correct `revision` in the catalog",
        without_hub="look at a folder without commits with `--dry-run --offline`",
    )


def pinned(catalog_file: str, commit: str) -> str:
    """The text of a model's catalog file with this commit as the revision of its weights."""
    lines = catalog_file.splitlines(keepends=True)
    number = line_of(catalog_file, ("weights", "revision"))
    line = f'revision = "{commit}"\n'
    if lines[number - 1].lstrip().startswith("revision"):
        return "".join([*lines[: number - 1], line, *lines[number:]])
    number = line_of(catalog_file, ("weights", "hub"))
    return "".join([*lines[:number], line, *lines[number:]])


def commits(pins: Sequence[Pin]) -> dict[str, str]:
    """The commit of each model that has one, by its id."""
    return {pin.spec.id: pin.commit for pin in pins if pin.commit}

"""Adapters from the Hub: the two files that are inspected and no others, kept only once they were found good.

They are downloaded to a folder of their own, inspected there, and moved to the store in one step; a refused adapter
leaves nothing. Called by whoever lets a user type in a Hub id. Knows no engine.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, hf_hub_download

from playground.adapters.config import CONFIG
from playground.adapters.facts import AdapterFacts, BaseLayers, Limits
from playground.adapters.files import PICKLES, shown
from playground.adapters.header import WEIGHTS
from playground.adapters.inspect import DEFAULT_LIMITS, inspect_adapter, inspect_config
from playground.errors import AdapterError, DownloadError
from playground.hub_errors import NO_HUB, Asked, hub_errors

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
STAGING = ".incoming-"
STALE_S = 24 * 3600
"""Seconds after which nobody can be receiving there any more."""

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class FetchedAdapter:
    """`commit`: the revision of the adapter's own repository, as 40 hex digits."""

    folder: Path
    commit: str
    facts: AdapterFacts


class AdapterStore:
    """Adapters from the Hub in a folder: owner--name/commit/, and owner--name/refs/ for the commits of branches.

    root: the folder, made when needed.
    endpoint: the Hub's address, None for the usual one.
    """

    def __init__(self, root: Path, endpoint: str | None = None) -> None:
        self._root = root
        self._endpoint = endpoint

    def fetch(
        self, hub_id: str, base: BaseLayers, revision: str = "main", limits: Limits = DEFAULT_LIMITS
    ) -> FetchedAdapter:
        """An adapter of the Hub, inspected; from the store if the Hub cannot be reached.

        Args:
            hub_id: owner/name.
            base: the layers of the model that it shall run on.
            revision: a branch, tag or commit of the adapter's repository.
            limits: sizes beyond which nothing is downloaded.

        Raises:
            AdapterError: it must not be loaded; nothing of it is kept.
            DownloadError: the Hub did not give it.
        """
        require_form(hub_id, revision)
        place = self._root / hub_id.replace("/", "--")
        with hub_errors(Asked(hub_id, revision, name=hub_id, place=str(self._root))):
            commit = self._commit(hub_id, revision, place)
            if (place / commit).is_dir():
                facts = inspect_adapter(place / commit, base, limits)
            else:
                self._root.mkdir(parents=True, exist_ok=True)
                _sweep(self._root)
                with TemporaryDirectory(dir=self._root, prefix=STAGING) as staging:
                    facts = self._receive(hub_id, commit, base, limits, Path(staging))
                    _keep(Path(staging), place / commit)
            if revision != commit:
                _note(_reference(place, revision), commit)
        return FetchedAdapter(place / commit, commit, facts)

    def _commit(self, hub_id: str, revision: str, place: Path) -> str:
        """The commit that a revision stands for, from the Hub, or as it was when the Hub was last reached.

        Raises:
            AdapterError: there, the repository has its weights as a pickle only, or is no adapter's.
        """
        if COMMIT.fullmatch(revision) and (place / revision).is_dir():
            return revision
        try:
            info = HfApi(endpoint=self._endpoint).model_info(hub_id, revision=revision)
        except NO_HUB:
            reference = _reference(place, revision)
            if not reference.is_file():
                raise
            return reference.read_text(encoding="utf-8")
        _require_files(hub_id, {sibling.rfilename for sibling in info.siblings or ()})
        if not COMMIT.fullmatch(info.sha or ""):
            raise DownloadError(f"The Hub calls revision {shown(revision)} of {hub_id} {shown(info.sha)}: no commit.")
        return str(info.sha)

    def _receive(self, hub_id: str, commit: str, base: BaseLayers, limits: Limits, staging: Path) -> AdapterFacts:
        """Both files to the staging folder, the small one first, each no larger than allowed."""
        for name, most in ((CONFIG, limits.config_bytes), (WEIGHTS, limits.weight_bytes)):
            size = self._download(hub_id, commit, name, staging, dry_run=True).file_size
            if size is None or size > most:
                raise AdapterError(f"{name} of {hub_id} takes {size} bytes, more than the {most:,} that are allowed.")
        self._download(hub_id, commit, CONFIG, staging)
        inspect_config(staging, base, limits)
        self._download(hub_id, commit, WEIGHTS, staging)
        return inspect_adapter(staging, base, limits)

    def _download(self, hub_id: str, commit: str, name: str, staging: Path, **options: Any) -> Any:
        return hf_hub_download(
            hub_id,
            name,
            revision=commit,
            local_dir=staging,
            cache_dir=staging / ".cache",  # never look into, or write to, the cache of other programs
            endpoint=self._endpoint,
            **options,
        )


def require_form(hub_id: str, revision: str) -> None:
    """Whether this could be a repository and a revision, so that only such are asked for.

    Raises:
        AdapterError: it could not.
    """
    if not HUB_ID.fullmatch(hub_id) or ".." in hub_id or "--" in hub_id or len(hub_id) > 96:
        raise AdapterError(f"{shown(hub_id)} is no Hub id: it should look like owner/name.")
    if not REVISION.fullmatch(revision) or ".." in revision or len(revision) > 128:
        raise AdapterError(f"{shown(revision)} is no revision: give a branch, a tag or a commit.")


def _require_files(hub_id: str, names: Collection[str]) -> None:
    pickles = sorted(name for name in names if name.lower().endswith(PICKLES))
    if CONFIG in names and WEIGHTS not in names and pickles:
        raise AdapterError(
            f"{hub_id} has its weights as a pickle only ({shown(pickles[0])}), which can run code when it is read: "
            f"ask its author for {WEIGHTS}."
        )
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise AdapterError(f"{hub_id} has no {name}: it is no LoRA adapter as PEFT writes it.")


def _keep(staging: Path, place: Path) -> None:
    """The staging folder to its place, in one step; another download of the same commit may have come first."""
    shutil.rmtree(staging / ".cache")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(staging, place)
    except OSError:
        if not place.is_dir():
            raise
    staging.mkdir(exist_ok=True)  # for TemporaryDirectory to remove


def _reference(place: Path, revision: str) -> Path:
    """Where is kept what a branch or tag stands for; names with slashes stand beside those without."""
    return place / "refs" / quote(revision, safe="")


def _note(reference: Path, commit: str) -> None:
    """What a branch or tag stands for, for times without the Hub."""
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")


def _sweep(root: Path) -> None:
    """What a process left that was killed while it received an adapter."""
    for staging in root.glob(f"{STAGING}*"):
        with suppress(OSError):  # another process may be sweeping too
            if time.time() - staging.stat().st_mtime > STALE_S:
                shutil.rmtree(staging)

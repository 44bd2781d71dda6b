"""Downloads from the Hub that say how far they are and go on where they stopped, also in another process.

Called by `checkpoint`. huggingface_hub 2.4 drops what it has of a file when its process ends, and a load is cancelled
by ending the process. So large files are fetched here, each into a part file beside the Hub cache's blobs, and become
the blob when they are whole; huggingface_hub finds them there and does all the rest.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import DryRunError
from huggingface_hub.file_download import DryRunFileInfo, http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers
from tqdm.auto import tqdm

from model_registry.spec import ModelSpec, Weights
from playground.errors import DownloadError
from playground.hub_errors import asked_for, hub_errors

LARGE = 16 * 2**20
"""Bytes from which a file is worth resuming."""

FILES_AT_ONCE = 4
HASH_PIECE = 8 * 2**20

Report = Callable[[int, int], None]


class _NoBar(tqdm):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


def snapshot(weights: Weights, patterns: list[str], **options: Any) -> Path:
    """huggingface_hub's own download of those files that are not in its cache; raises what it raises."""
    assert weights.hub is not None
    return Path(
        snapshot_download(weights.hub, revision=weights.revision, allow_patterns=patterns, tqdm_class=_NoBar, **options)
    )


def download(spec: ModelSpec, patterns: list[str], report: Report) -> Path:
    """The folder in the Hub's cache with the files of `spec` that the globs name. See `checkpoint.fetch`."""
    with hub_errors(asked_for(spec)):
        files = _listed(spec.weights, patterns)
        parts = [_part(spec.weights, file) for file in files if file.will_download and (file.file_size or 0) >= LARGE]
        counter = _Counter(files, parts, report)
        _require_space(spec, counter.total - counter.done)
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="download") as threads:
            list(threads.map(lambda part: part.fetch(counter.add), parts))
        folder = snapshot(spec.weights, patterns)
        counter.finish()
    return folder


def _listed(weights: Weights, patterns: list[str]) -> Sequence[DryRunFileInfo]:
    """What is to be had; nothing where the Hub cannot be asked, for then the cache has it all, or the error follows."""
    assert weights.hub is not None
    try:
        return snapshot_download(
            weights.hub, revision=weights.revision, allow_patterns=patterns, tqdm_class=_NoBar, dry_run=True
        )
    except DryRunError:
        return ()


def _part(weights: Weights, file: DryRunFileInfo) -> _Part:
    assert weights.hub is not None
    url = hf_hub_url(weights.hub, file.filename, revision=file.commit_hash)
    found = get_hf_file_metadata(url)
    if found.etag is None or found.size is None:
        raise DownloadError(f"The Hub does not say how large {file.filename} of {weights.hub} is: try again later.")
    cache, repo = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=weights.hub, repo_type="model")
    lock = cache / ".locks" / repo / f"{found.etag}.part.lock"
    return _Part(url, file.filename, found.size, found.etag, cache / repo / "blobs", lock)


@dataclass(frozen=True, slots=True)
class _Part:
    """A large file that is not there, or not whole."""

    url: str
    name: str
    size: int
    etag: str
    blobs: Path
    lock: Path

    @property
    def path(self) -> Path:
        return self.blobs / f"{self.etag}.part"

    @property
    def there(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def fetch(self, add: Callable[[int], None]) -> None:
        for folder in (self.blobs, self.lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.lock):
            if not (self.blobs / self.etag).exists():
                self._fetch_rest(add)

    def _fetch_rest(self, add: Callable[[int], None]) -> None:
        there = self.there
        with self.path.open("ab", buffering=0) as file:
            http_get(
                self.url,
                file,
                resume_size=there,
                headers=build_hf_headers(),
                expected_size=self.size,
                tqdm_class=_told(add),
            )
        if there:
            self._require_whole()
        self.path.replace(self.blobs / self.etag)

    def _require_whole(self) -> None:
        """Pieces of two processes were joined: the etag of a large file is the hash of its content."""
        if not re.fullmatch("[0-9a-f]{64}", self.etag):
            return
        sha256 = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(HASH_PIECE):
                sha256.update(piece)
        if sha256.hexdigest() != self.etag:
            self.path.unlink()
            raise DownloadError(f"{self.name} arrived damaged and was deleted: load the model again to fetch it anew.")


def _told(add: Callable[[int], None]) -> type[tqdm]:
    class Told(_NoBar):
        def update(self, n: float | None = 1) -> None:
            add(int(n or 0))

    return Told


class _Counter:
    """Bytes of all files together, counted by several threads; what was there before counts as done."""

    def __init__(self, files: Sequence[DryRunFileInfo], parts: Sequence[_Part], report: Report) -> None:
        self.total = sum(file.file_size or 0 for file in files)
        self.done = sum(file.file_size or 0 for file in files if not file.will_download)
        self.done += sum(part.there for part in parts)
        self._report = report
        self._lock = threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            self._report(self.done, self.total)

    def finish(self) -> None:
        self.add(self.total - self.done)


def _require_space(spec: ModelSpec, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in [cache, *cache.parents] if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DownloadError(
            f"{spec.name} has {needed / 1e9:.1f} GB to download, and {cache} has {free / 1e9:.1f} GB free: make room "
            f"for {(needed - free) / 1e9:.1f} GB more, or let HF_HOME name a folder on another disk."
        )

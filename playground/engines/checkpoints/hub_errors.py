"""What the refusals of the Hub, of the network and of the disk mean to the user.

The one place where the errors of huggingface_hub become ours; used by `download` alone.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model_registry.spec import ModelSpec
from playground.errors import DownloadError


@contextmanager
def hub_errors(spec: ModelSpec) -> Iterator[None]:
    """Raises DownloadError, with a sentence that says what to do, for whatever goes wrong inside."""
    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.TransportError, OSError) as error:
        raise DownloadError(_sentence(spec, error)) from error


def _sentence(spec: ModelSpec, error: Exception) -> str:
    repo = spec.weights.hub
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub was reached, and huggingface_hub has looked into its cache since
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms on huggingface.co/{repo}, then log in with `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"The Hub has no public repository {repo}: check the name, or log in with `hf auth login` if it is private."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {spec.weights.revision!r}: correct `revision` in the catalog."
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | httpx2.TransportError):
        return (
            f"{spec.name} is not on this machine and the Hub cannot be reached: go online, or copy the files here and "
            "name the folder as `path` under [weights] in a catalog file."
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        return f"The Hub answered {status} for {repo}: try again in a while."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: make room for {spec.name}, or let HF_HOME name a folder on another disk, and load it "
            "again. What has arrived is kept."
        )
    return f"{spec.name} could not be written to the download cache: {error}."

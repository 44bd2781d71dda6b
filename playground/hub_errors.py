"""What the refusals of the Hub, of the network and of the disk mean to the user.

The one place where the errors of huggingface_hub become ours. Called by whoever asks the Hub for the files of a model
or of an adapter, or brings it a Space; downloads and uploads nothing itself.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from model_registry.spec import ModelSpec
from playground.errors import DownloadError, SpaceError

NO_HUB = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError)
"""How huggingface_hub says that it could not speak to the Hub."""

HUB_ERRORS = (HfHubHTTPError, EntryNotFoundError, HFValidationError, XetDownloadError, httpx2.TransportError, OSError)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the Hub is asked for, and what people can do where it is not to be had.

    name: what people call it.
    place: where it is written to.
    lack: what keeps it from being had without the Hub.
    right_revision, without_hub: how to correct a revision that is not there, and how to do without the Hub.
    resumes: whether a download goes on where it stopped.
    """

    repo: str
    revision: str
    name: str
    place: str
    lack: str = "is not on this machine"
    right_revision: str = "check its branches and tags"
    without_hub: str = "copy its files here and give their folder"
    resumes: bool = False


def asked_for(spec: ModelSpec) -> Asked:
    """A model's files, for the Hub's own cache."""
    return Asked(
        repo=str(spec.weights.hub),
        revision=spec.weights.revision,
        name=spec.name,
        place="the download cache",
        right_revision="correct `revision` in the catalog",
        without_hub="copy the files here and name the folder as `path` under [weights] in a catalog file",
        resumes=True,
    )


@contextmanager
def hub_errors(asked: Asked) -> Iterator[None]:
    """Whatever goes wrong inside becomes a sentence that says what to do.

    Raises:
        DownloadError: the Hub did not give it, or it could not be written; the cause is the error itself.
    """
    try:
        yield
    except HUB_ERRORS as error:
        raise DownloadError(_sentence(asked, error)) from error


@contextmanager
def upload_errors(repo: str) -> Iterator[None]:
    """The same for whoever brings the Space `repo` to the Hub.

    Raises:
        SpaceError: the Hub took it not, or not all of it; the cause is the error itself.
    """
    try:
        yield
    except (*HUB_ERRORS, ValueError) as error:
        raise SpaceError(_not_taken(repo, error)) from error


def _not_taken(repo: str, error: Exception) -> str:
    if isinstance(error, NO_HUB):
        return "The Hub cannot be reached: go online and try again; what was done before is done again."
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    said = (error.server_message if isinstance(error, HfHubHTTPError) else None) or str(error).splitlines()[0]
    if status == 401:
        return f"The Hub does not know you, or not as one who may write to {repo}: log in with `hf auth login`."
    if status == 402:
        return f"The Hub wants a means of payment before it gives this to {repo}: {said.rstrip('.')}."
    if status == 403:
        return f"You may not write to {repo}: check its owner, and that your token may write ({said.rstrip('.')})."
    if isinstance(error, HFValidationError):
        return f"{repo!r} cannot be the name of a Space: write owner/name."
    return f"The Hub did not take {repo}: {said.rstrip('.')}."


def _sentence(asked: Asked, error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub was reached, and huggingface_hub has looked into its cache since
    if isinstance(error, NO_HUB):
        return f"{asked.name} {asked.lack} and the Hub cannot be reached: go online, or {asked.without_hub}."
    if isinstance(error, HfHubHTTPError | EntryNotFoundError | HFValidationError):
        return _refusal(asked, error)
    if isinstance(error, XetDownloadError):
        return f"The download of {asked.name} broke off: try again in a while."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        kept = " What has arrived is kept." if asked.resumes else ""
        return (
            f"The disk is full: make room for {asked.name}, or let HF_HOME name a folder on another disk, and load it "
            f"again.{kept}"
        )
    return f"{asked.name} could not be written to {asked.place}: {error}."


def _refusal(asked: Asked, error: Exception) -> str:
    """What the Hub itself says."""
    repo = asked.repo
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms on huggingface.co/{repo}, then log in with `hf auth login`."
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            f"The Hub has no public repository {repo}: check the name, or log in with `hf auth login` if it is private."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {asked.revision!r}: {asked.right_revision}."
    if isinstance(error, EntryNotFoundError):
        return f"{repo} lacks a file that it must have: check the name."
    response = error.response if isinstance(error, HfHubHTTPError) else None
    return (
        f"The Hub answered {response.status_code if response is not None else 'no'} for {repo}: try again in a while."
    )

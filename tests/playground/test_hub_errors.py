"""What goes wrong between this machine and the Hub, as sentences; the same for models and adapters."""

from __future__ import annotations

import errno

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from model_registry.registry import Registry
from playground.errors import AdapterError, DownloadError
from playground.hub_errors import Asked, asked_for, hub_errors

ADAPTER = Asked("org/adapter", "v9", name="org/adapter", place="/store")
OFFLINE = "org/adapter is not on this machine and the Hub cannot be reached: go online, or copy its files here"
FULL = "The disk is full: make room for org/adapter, or let HF_HOME name a folder on another disk, and load it again."


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co/org/adapter")
    return kind("refused", response=httpx2.Response(status, request=request))


def reached_but_not_cached() -> Exception:
    """What huggingface_hub raises when the Hub refused and its cache has nothing either."""
    error = LocalEntryNotFoundError("not there")
    error.__cause__ = answer(GatedRepoError, 403)
    return error


ERRORS = [
    (answer(GatedRepoError, 403), "org/adapter is gated: accept its terms on huggingface.co/org/adapter"),
    (reached_but_not_cached(), "org/adapter is gated"),
    (answer(RepositoryNotFoundError, 404), "The Hub has no public repository org/adapter"),
    (HFValidationError("a/b/c"), "The Hub has no public repository org/adapter"),
    (answer(RevisionNotFoundError, 404), "org/adapter has no revision 'v9': check its branches and tags."),
    (answer(RemoteEntryNotFoundError, 404), "org/adapter lacks a file that it must have"),
    (answer(HfHubHTTPError, 503), "The Hub answered 503 for org/adapter: try again in a while."),
    (XetDownloadError("lost"), "The download of org/adapter broke off: try again in a while."),
    (LocalEntryNotFoundError("not there"), OFFLINE),
    (OfflineModeIsEnabled("off"), OFFLINE),
    (httpx2.ConnectError("no route"), OFFLINE),
    (httpx2.ReadTimeout("slow"), OFFLINE),
    (OSError(errno.ENOSPC, "No space left on device"), FULL),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
    (PermissionError(errno.EACCES, "Permission denied"), "org/adapter could not be written to /store: "),
]


@pytest.mark.parametrize(("error", "says"), ERRORS, ids=[type(error).__name__ + says[:12] for error, says in ERRORS])
def test_every_error_is_a_sentence(error: Exception, says: str) -> None:
    with pytest.raises(DownloadError) as caught, hub_errors(ADAPTER):
        raise error
    assert str(caught.value).startswith(says)
    assert caught.value.__cause__ is error


def test_a_models_sentences_name_the_catalog_and_its_cache() -> None:
    asked = asked_for(Registry.load().get("kullm3"))
    for error, says in (
        (answer(RevisionNotFoundError, 404), "nlpai-lab/KULLM3 has no revision 'main': correct `revision` in the cata"),
        (
            OfflineModeIsEnabled("off"),
            "KULLM3 is not on this machine and the Hub cannot be reached: go online, or copy",
        ),
        (OSError(errno.ENOSPC, "full"), "The disk is full: make room for KULLM3, or let HF_HOME name a folder"),
        (OSError(errno.EIO, "broken"), "KULLM3 could not be written to the download cache: "),
    ):
        with pytest.raises(DownloadError) as caught, hub_errors(asked):
            raise error
        assert str(caught.value).startswith(says)
        assert str(caught.value).endswith("What has arrived is kept.") == ("disk is full" in says)


@pytest.mark.parametrize("error", [AdapterError("not safe"), DownloadError("told already"), KeyError("a bug of ours")])
def test_what_is_no_error_of_the_hub_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, hub_errors(ADAPTER):
        raise error
    assert caught.value is error

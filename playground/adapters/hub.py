"""What the Hub's refusals mean, for adapters and for the config.json of the models that they are inspected for.

Called by `fetch` and by the command line. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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

from playground.adapters.files import shown
from playground.errors import DownloadError

NO_HUB = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError)
"""How huggingface_hub says that it could not speak to the Hub."""


@contextmanager
def hub_errors(hub_id: str, revision: str) -> Iterator[None]:
    """The one place where the Hub's errors become ours, while a repository is asked for something.

    Raises:
        DownloadError: the Hub did not give it.
    """
    try:
        yield
    except GatedRepoError as error:
        raise DownloadError(
            f"{hub_id} is gated: accept its terms on huggingface.co/{hub_id}, then log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DownloadError(
            f"The Hub has no public repository {hub_id}: check the name, or log in with `hf auth login` if it is "
            "private."
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{hub_id} has no revision {shown(revision)}: check its branches and tags.") from error
    except NO_HUB as error:
        raise DownloadError(
            f"{hub_id} is not on this machine and the Hub cannot be reached: go online, or copy its files here and "
            "give their folder."
        ) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{hub_id} lacks a file that it must have: check the name.") from error
    except XetDownloadError as error:
        raise DownloadError(f"The download of {hub_id} broke off: try again in a while.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise DownloadError(f"The Hub answered {status} for {hub_id}: try again in a while.") from error

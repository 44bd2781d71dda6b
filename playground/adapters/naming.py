"""What people write to name an adapter: an id of the catalog, a repository or page of the Hub, or a folder.

Looks at the text alone: no file and no network. Called by the library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from playground.adapters.fetch import require_form
from playground.adapters.files import PATH_ERRORS, shown
from playground.errors import AdapterError

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://|(?:www\.)?huggingface\.co/|hf\.co/)", re.IGNORECASE)
FOLDER = re.compile(r"[/~]|\\\\|[A-Za-z]:[\\/]|\.{1,2}(?:[\\/]|$)")
"""How the path of a folder begins: it is absolute, of a home, of a Windows drive or server, or begins with a dot."""

MAX_LETTERS = 4096
"""No path is longer (Linux's PATH_MAX)."""

FORMS = "a Hub id looks like owner/name, and a folder's path begins with /, ./ or ~"


@dataclass(frozen=True, slots=True)
class CatalogName:
    id: str


@dataclass(frozen=True, slots=True)
class HubName:
    """`revision`: a branch, a tag or a commit."""

    id: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class FolderName:
    """`path` is as it was written; `place` makes it absolute."""

    path: str

    def place(self) -> Path:
        """The absolute path, with its links as they are, and with any `..`, for which it will be refused.

        Raises:
            AdapterError: it begins with the home of somebody whom this machine does not know.
        """
        try:
            return Path(Path.cwd(), Path(self.path).expanduser())
        except PATH_ERRORS as error:
            raise AdapterError(f"{shown(self.path)} is no path on this machine: give the whole path.") from error


Name = CatalogName | HubName | FolderName


def parse_name(text: str) -> Name:
    """What a text names.

    Raises:
        AdapterError: it is the address of no repository, or has not the form of a Hub id.
    """
    text = text.strip()
    if len(text) > MAX_LETTERS:
        raise AdapterError(f"{shown(text)} is too long for an adapter's name: {FORMS}.")
    if ADDRESS.match(text):
        return _address(text)
    if FOLDER.match(text):
        return FolderName(text)
    if "/" not in text:
        return CatalogName(text)
    hub_id, _, revision = text.partition("@")
    return _hub(hub_id, revision)


def _address(text: str) -> HubName:
    """A page of the Hub, as the browser shows its address: /owner/name or /owner/name/tree/revision."""
    try:
        address = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError as error:
        raise AdapterError(f"{shown(text)} is no address: {error}.") from error
    if address.netloc.lower() not in HUB_HOSTS or address.scheme.lower() not in ("http", "https"):
        raise AdapterError(f"{shown(text)} is no address on huggingface.co: {FORMS}.")
    parts = [unquote(part) for part in address.path.strip("/").split("/")]
    match parts[2:]:
        case []:
            return _hub("/".join(parts), "")
        case ["tree" | "commit", revision]:
            return _hub("/".join(parts[:2]), revision)
    raise AdapterError(f"{shown(text)} is not the page of a repository: give its own address, or its owner/name.")


def _hub(hub_id: str, revision: str) -> HubName:
    name = HubName(hub_id, revision or "main")
    require_form(name.id, name.revision)
    return name

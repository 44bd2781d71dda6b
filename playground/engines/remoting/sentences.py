"""What goes wrong with a server elsewhere, as a sentence that names its host and says what to do.

The one place where the errors of httpx2, huggingface_hub and json become ours. Quotes little of what a server says, and
never the key, not even where the server does.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
from dataclasses import dataclass
from html import unescape
from traceback import extract_tb
from urllib.parse import quote, unquote, urlsplit

import httpx2
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    InferenceTimeoutError,
    OfflineModeIsEnabled,
    OverloadedError,
    TextGenerationError,
)
from pydantic import SecretStr

from playground.engines.remoting.connection import GarbageError, RefusedError, plain_key
from playground.engines.remoting.forms import CONTROLS, is_too_long, refused_control
from playground.engines.remoting.told import ServerSaidError, said
from playground.errors import (
    ContextFullError,
    EngineBusyError,
    EngineClosedError,
    EngineError,
    PlaygroundError,
    SamplingError,
)

SHORTEST_KEY = 8
"""Characters of a key that is kept out of sentences."""

QUOTED = 200
"""Characters of a server's own words that a sentence may have."""

NESTED = 4
"""Escapes within escapes that are read, at least."""
_HEX = "[0-9a-fA-F]"
_ESCAPED = re.compile(rf"\\+(?:u({_HEX}{{4}})|u\{{({_HEX}{{1,6}})\}}|x({_HEX}{{2}})|U({_HEX}{{8}}))")

TOO_BUSY = (429, 502, 503, 504)

log = logging.getLogger(__name__)


class StalledError(Exception):
    """Nothing came for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class EndlessError(Exception):
    """The answer had `seconds`, and no end by then."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class UnfinishedError(Exception):
    """The answer ended without a reason."""


class HeldBackError(Exception):
    """The server's filter ended the answer."""


class OnlyThoughtError(Exception):
    """The answer is over before it began: what came were thoughts."""


class ToolCallError(Exception):
    """The answer ended in a call of a tool."""


class EmptyError(Exception):
    """The answer ended by itself, and nothing can be seen of it."""


ENDINGS = {
    UnfinishedError: "ended its answer without saying why: it may be cut short. Try again.",
    HeldBackError: "held back the rest of its answer, or all of it, by a filter of its own: ask in other words.",
    OnlyThoughtError: (
        "only thought and came to no answer: ask for a longer answer, or switch the model's thinking off there."
    ),
    ToolCallError: "called a tool, and there is none here: ask in other words, or switch its tools off there.",
    EmptyError: (
        "ended its answer without a word: ask in other words, and without stop strings, or look whether its template "
        "is the model's."
    ),
}


@dataclass(frozen=True, slots=True)
class Site:
    """What errors are about: where the server is, what it calls the model, and the key that no sentence may hold."""

    url: str
    model: str
    key: SecretStr

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


def cause(error: Exception) -> Exception:
    """The error of the network itself, where huggingface_hub wrapped it."""
    inner = error.__cause__
    return inner if isinstance(error, InferenceTimeoutError) and isinstance(inner, Exception) else error


def sentence(error: Exception, site: Site, *, begun: bool = False) -> PlaygroundError:
    """The error as the user's.

    Args:
        begun: whether some of the answer had come, which the panel keeps.
    """
    error = cause(error)
    if isinstance(error, PlaygroundError):
        return error
    if isinstance(error, RefusedError):
        return _refusal(error, site)
    if isinstance(error, HfHubHTTPError):
        return _refusal(RefusedError(error.response.status_code, str(error)), site)
    if isinstance(error, ServerSaidError | TextGenerationError):
        return _told_in_stream(error, site)
    if isinstance(error, StalledError):
        missing = "gone on with its answer" if begun else "begun to answer"
        return EngineError(
            f"{site.host} has not {missing} for {error.seconds:g} seconds, so it was given up: it may be overloaded. "
            "Try again."
        )
    if isinstance(error, EndlessError):
        return EngineError(
            f"{site.host} has not come to the end of its answer within {error.seconds / 60:.3g} minutes, so it was "
            "left: ask for a shorter answer, or another server."
        )
    if ending := ENDINGS.get(type(error)):
        return EngineError(f"{site.host} {ending}")
    return _connection(error, site, begun) or _garbage(error, site) or _unforeseen(error, site)


def quoted(text: str, site: Site) -> str:
    """A server's own words: the key taken out, in one line, and not too many. "" where they spell it in another way."""
    if _is_secret(site.key):
        key = plain_key(site.key)
        for spelling in (key, quote(key, safe=""), json.dumps(key)[1:-1]):
            text = text.replace(spelling, "…")
        if spells_key(text, site.key):
            return ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= QUOTED else line[: QUOTED - 1] + "…"


def spells_key(text: str, key: SecretStr) -> bool:
    """Whether a server's words hold the key, in any of the ways in which one could still read it there.

    Its escapes are read: of JSON, of urls, of HTML, one in the other. What no key may have is left out: controls and
    signs without width between its letters, spaces, accents on them.
    """
    if not _is_secret(key):
        return False
    sought = plain_key(key).replace("\\", "")
    for _ in range(NESTED):
        if sought in "".join(letter for letter in text if "!" <= letter <= "~" and letter != "\\"):
            return True
        text = unescape(unquote(_ESCAPED.sub(_letter, text)))
    return False


def _is_secret(key: SecretStr) -> bool:
    """What is typed where a server wants none, such as "-" or the model's name, is a part of many words."""
    return len(key.get_secret_value().strip()) >= SHORTEST_KEY


def _letter(escape: re.Match[str]) -> str:
    number = int("".join(filter(None, escape.groups())), 16)
    return chr(number) if number < 128 else escape[0]  # a key is ASCII


def words(refusal: RefusedError) -> str:
    """What a server gave as the reason of its refusal; "" for a page of HTML."""
    try:
        return said(json.loads(refusal.text))
    except (ValueError, RecursionError):
        return "" if re.match(r"\s*<", refusal.text) else refusal.text


def _refusal(refusal: RefusedError, site: Site) -> PlaygroundError:
    status, host = refusal.status, site.host
    own = quoted(words(refusal), site)
    says = f" It says: {own}" if own else ""
    if status in (401, 403):
        if not site.key.get_secret_value():
            return EngineError(f"{host} wants a key ({status}): give it one.{says}")
        return EngineError(f"{host} does not accept the key that it was given ({status}): check it.{says}")
    if is_too_long(refusal):
        return ContextFullError(
            f"{host} finds prompt and answer too long together: shorten the prompt, clear the history, or ask for a "
            f"shorter answer.{says}"
        )
    if field := refused_control(refusal):
        return SamplingError(f"{host} does not take `{field}` as it is set: {CONTROLS[field]}.{says}")
    return _refusal_by_status(refusal, site, says)


def _refusal_by_status(refusal: RefusedError, site: Site, says: str) -> PlaygroundError:
    status, host = refusal.status, site.host
    if 300 <= status < 400:
        where = f" to {quoted(refusal.location, site)}" if refusal.location else ""
        return EngineError(
            f"{host} redirects{where}, which is not followed, so that the key goes nowhere else: give the address that "
            "answers itself."
        )
    if status == 404:
        return EngineError(
            f"{host} has no model {site.model!r}, or no such API at {site.url}: check both. An address usually ends in "
            f"/v1.{says}"
        )
    if status == 429:
        return EngineBusyError(f"{host} takes no more requests at the moment: try again in a while.{says}")
    if status in TOO_BUSY:
        return EngineBusyError(f"{host} is not ready to answer ({status}): try again in a while.{says}")
    if status >= 500:
        return EngineError(f"{host} failed ({status}): try again, or look into its log.{says}")
    return EngineError(f"{host} refuses this request ({status}): check the model's name and the address.{says}")


def _told_in_stream(error: Exception, site: Site) -> PlaygroundError:
    own = quoted(said(error.args[0]) if error.args else "", site)
    says = f" It says: {own}" if own else ""
    if isinstance(error, OverloadedError):
        return EngineBusyError(f"{site.host} is overloaded: try again in a while.{says}")
    return EngineError(f"{site.host} failed while it answered: try again, or look into its log.{says}")


def _connection(error: Exception, site: Site, begun: bool) -> EngineError | None:
    host = site.host
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return EngineError(f"{host} does not answer: check the address, and whether the server runs.")
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | ssl.SSLError):
        return EngineError(_unreachable(error, host))
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | HFValidationError):
        return EngineError(f"{host} is no address that can be asked: write one such as http://127.0.0.1:8000/v1.")
    if isinstance(error, OfflineModeIsEnabled):
        return EngineError(f"{host} was not asked, because huggingface_hub is offline: unset HF_HUB_OFFLINE.")
    if isinstance(error, httpx2.TransportError | httpx2.StreamError | TimeoutError | OSError):
        when = "while it answered" if begun else "before it answered"
        return EngineError(f"The connection to {host} broke {when}: the server may have stopped. Try again.")
    return None


def _unreachable(error: Exception, host: str) -> str:
    text = str(error)
    if "CERTIFICATE" in text or "SSL" in text or "TLS" in text:
        return f"{host} cannot be asked over https, for its certificate is not trusted or it speaks none: check it."
    if "Name or service" in text or "getaddrinfo" in text or "resolution" in text or "nodename" in text:
        return f"There is no computer called {host}: check the address."
    return f"{host} cannot be reached: check the address, and whether the server runs."


def _garbage(error: Exception, site: Site) -> EngineError | None:
    if isinstance(error, GarbageError):
        return EngineError(f"{site.host} sent {error}: it may be no server of models. Check the address.")
    if isinstance(error, httpx2.HTTPError | httpx2.CookieConflict | ValueError):
        return EngineError(f"{site.host} sent what is no answer of a model: check the address, or its log.")
    return None


def _unforeseen(error: Exception, site: Site) -> EngineError:
    """Its text is not logged, for it may quote the key."""
    trace = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(extract_tb(error.__traceback__)))
    log.error("%s: %s at %s", site.host, type(error).__name__, trace)
    return EngineError(f"{site.host} could not be asked ({type(error).__name__}): try again; the log has the details.")


def closed(name: str) -> EngineClosedError:
    return EngineClosedError(f"{name} was stopped while it answered: send again.")

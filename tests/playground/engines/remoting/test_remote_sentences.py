"""Every error of the libraries beneath becomes one of ours: a sentence that says what to do, and never the key."""

from __future__ import annotations

import json

import httpx2
import huggingface_hub.errors
import pytest
from pydantic import SecretStr
from remote_room import KEY

from playground.engines.remoting.connection import GarbageError, RefusedError
from playground.engines.remoting.sentences import (
    QUOTED,
    EmptyError,
    EndlessError,
    HeldBackError,
    OnlyThoughtError,
    Site,
    StalledError,
    ToolCallError,
    UnfinishedError,
    sentence,
    spells_key,
)
from playground.engines.remoting.told import ServerSaidError
from playground.errors import (
    LoadError,
    PlaygroundError,
)

SITE = Site("http://host.example:8000/v1", "m", SecretStr(KEY))


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def made(kind: type[Exception]) -> Exception:
    """An error of this class, however it is made."""
    response = httpx2.Response(500, request=httpx2.Request("POST", SITE.url), text=KEY)
    if issubclass(kind, huggingface_hub.errors.HfHubHTTPError):
        return kind(KEY, response=response)
    if kind is httpx2.HTTPStatusError:
        return httpx2.HTTPStatusError(KEY, request=response.request, response=response)
    for arguments in ((KEY,), (), (1, KEY)):
        try:
            return kind(*arguments)
        except TypeError:
            continue
    raise AssertionError(kind)


NETWORK = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, httpx2.CookieConflict)
FOREIGN = {
    *(each for root in NETWORK for each in subclasses(root)),
    huggingface_hub.errors.OfflineModeIsEnabled,
    huggingface_hub.errors.HFValidationError,
    json.JSONDecodeError,
    ConnectionResetError,
    BrokenPipeError,
    TimeoutError,
    OSError,
}


@pytest.mark.parametrize("kind", sorted(FOREIGN, key=str), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("begun", [False, True])
def test_no_foreign_error_is_unmapped(kind: type[Exception], begun: bool, caplog: pytest.LogCaptureFixture) -> None:
    error = json.JSONDecodeError("no", KEY, 0) if kind is json.JSONDecodeError else made(kind)
    ours = sentence(error, SITE, begun=begun)
    assert isinstance(ours, PlaygroundError)
    assert "host.example:8000" in str(ours)
    assert KEY not in str(ours)
    assert not caplog.records, "it has a sentence of its own"


@pytest.mark.parametrize(
    "error",
    [
        RefusedError(400, KEY),
        GarbageError("nothing"),
        StalledError(3),
        EndlessError(1800),
        UnfinishedError(),
        OnlyThoughtError(),
        ToolCallError(),
        EmptyError(),
        HeldBackError(),
        ServerSaidError(KEY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_none_of_our_own_is_unmapped(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    ours = sentence(error, SITE)
    assert "host.example:8000" in str(ours)
    assert KEY not in str(ours)
    assert not caplog.records


def test_what_nobody_foresaw_is_told_and_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    ours = sentence(RuntimeError(KEY), SITE)
    assert "RuntimeError" in str(ours)
    assert KEY not in str(ours) + caplog.text
    assert "RuntimeError" in caplog.text


def test_the_hubs_own_time_out_is_that_of_the_network() -> None:
    error = huggingface_hub.errors.InferenceTimeoutError("Inference call timed out")
    error.__cause__ = httpx2.ConnectTimeout("")
    assert sentence(error, SITE).args == sentence(httpx2.ConnectTimeout(""), SITE).args


def test_our_own_errors_pass_as_they_are() -> None:
    error = LoadError("The tokenizer is not there.")
    assert sentence(error, SITE) is error


SPELLINGS = {
    "json": lambda letter: f"\\u{ord(letter):04x}",
    "json in json": lambda letter: f"\\\\u{ord(letter):04X}",
    "wide": lambda letter: f"\\U{ord(letter):08x}",
    "python": lambda letter: f"\\x{ord(letter):02x}",
    "script": lambda letter: f"\\u{{{ord(letter):x}}}",
    "url": lambda letter: f"%{ord(letter):02x}",
    "url in a url": lambda letter: f"%25{ord(letter):02X}",
    "html": lambda letter: f"&#{ord(letter)};",
    "html in hexadecimal": lambda letter: f"&#x{ord(letter):x};",
    "html in html": lambda letter: f"&amp;#{ord(letter)};",
    "backslashes": lambda letter: f"\\{letter}",
    "controls": lambda letter: f"{letter}\x00",
    "controls in json": lambda letter: f"{letter}\\u0007",
    "signs without width": lambda letter: f"{letter}\u200b",
    "spaces": lambda letter: f"{letter} ",
    "accents": lambda letter: f"{letter}\u0301",
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("which", [slice(2, 3), slice(None)], ids=["one letter", "all"])
def test_a_key_that_is_spelled_in_another_way_is_not_quoted_either(name: str, which: slice) -> None:
    letters = list(KEY)
    letters[which] = [SPELLINGS[name](letter) for letter in letters[which]]
    for words in ("".join(letters), f"{KEY} " + "".join(letters)):
        for error in (RefusedError(500, f"No quota for {words}."), ServerSaidError(f"No quota for {words}.")):
            assert "It says" not in str(sentence(error, SITE))


@pytest.mark.parametrize("none", ["", "  "])
def test_where_there_is_no_key_nothing_spells_it(none: str) -> None:
    assert not spells_key("krutrim-1 - or none", SecretStr(none))


def test_words_with_escapes_that_spell_no_key_are_quoted() -> None:
    words = r"\u00e9 \uZZZZ \U99999999 %zz &amp; 100%"
    assert words in str(sentence(RefusedError(500, words), SITE))
    assert "…" in str(sentence(RefusedError(500, f"No quota for {KEY}."), SITE))


def test_a_servers_words_are_few_and_in_one_line() -> None:
    ours = str(sentence(RefusedError(400, "word\n\x1b[31m " * 200), SITE))
    assert "\n" not in ours
    assert "\x1b" not in ours
    assert len(ours) < QUOTED + 150

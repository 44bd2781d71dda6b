"""A server's key goes to that server and nowhere else, to no log, sentence or other host. This machine's never goes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_server import FakeServer, Reply, fake_server, refuses, says, streams
from pydantic import SecretStr
from remote_room import KEY, answer, both, broken_answer, engine_for, question, servers
from serving import ROOT

from playground.engines.remoting.policy import EndpointPolicy
from playground.errors import EngineError
from playground.log import configure_log

MACHINES_TOKEN = "hf_thetokenofthismachine"


@both
async def test_the_key_that_was_given_is_sent_and_no_other(messages_only: bool) -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            await answer(engines, question(server, messages_only=messages_only))
            await answer(engines, question(server, messages_only=messages_only, key=SecretStr("")))
    assert [each.headers["authorization"] for each in server.asked] == [f"Bearer {KEY}", "Bearer -"]
    assert all(set(each.headers) <= KNOWN_HEADERS for each in server.asked)


KNOWN_HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "user-agent",
    "authorization",
    "content-length",
    "content-type",
}


@both
async def test_a_redirect_is_not_followed(messages_only: bool) -> None:
    with fake_server(says("stolen")) as thief:
        reply = refuses(307, "", location=f"{thief.url}/completions?as={KEY}")
        with fake_server(reply) as server:
            async with servers() as engines:
                said, error = await broken_answer(engines, question(server, messages_only=messages_only))
                with pytest.raises(EngineError, match="not followed"):
                    await engines.models(server.url, SecretStr(KEY))
    assert said == ""
    assert "not followed" in str(error)
    assert thief.host in str(error)
    assert KEY not in str(error)
    assert not thief.asked


TELLTALES = {
    "refused": refuses(401, {"error": {"message": f"Bad key {KEY} for Bearer {KEY}"}}, x_error_message=KEY),
    "refused in text": refuses(500, f"Authorization: Bearer {KEY}", x_hf_warning=f"t; {KEY}"),
    "cut short": refuses(500, "x" * 190 + KEY),
    "in the stream": streams(("안녕",), {"error": {"message": f"no quota left for {KEY}"}}),
    "garbage": streams(("안녕",), f"data: {KEY}\n\n"),
    "not a number": streams((KEY,), f'data: {{"choices": [{{"text": {{"{KEY}": 1}}}}]}}\n\n'),
}


@both
@pytest.mark.parametrize("reply", TELLTALES)
async def test_a_server_that_repeats_the_key_does_not_get_it_onto_the_page_or_into_the_log(
    messages_only: bool, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure_log(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    with fake_server(TELLTALES[reply]) as server:
        async with servers() as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert isinstance(error, EngineError)
    assert KEY not in str(error)
    assert KEY[:12] not in str(error)
    assert KEY not in caplog.text
    assert error.__cause__ is None
    assert error.__context__ is None  # else a logged traceback would quote what the server said


@both
async def test_no_log_line_and_no_value_shows_a_key(messages_only: bool, caplog: pytest.LogCaptureFixture) -> None:
    configure_log(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    with fake_server(says("a")) as server:
        async with servers() as engines:
            request = question(server, messages_only=messages_only)
            await answer(engines, request)
            assert KEY not in repr((request, engine_for(engines, request), vars(engines)))
            assert KEY not in str(engines._learnt._forms)
    assert KEY not in caplog.text
    assert KEY not in request.model_dump_json()


@pytest.mark.parametrize("key", ["한국어", "two words", "line\nbreak", "tab\tbed"])
@both
async def test_a_key_that_no_header_can_hold_is_refused_without_being_quoted(messages_only: bool, key: str) -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only, key=SecretStr(key)))
            with pytest.raises(EngineError, match="without spaces"):
                await engines.models(server.url, SecretStr(key))
    assert isinstance(error, EngineError)
    assert key not in str(error)
    assert not server.asked


async def test_a_key_with_spaces_around_it_was_only_copied_badly() -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            await answer(engines, question(server, key=SecretStr(f" {KEY}\n")))
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_server_that_is_not_listed_is_never_asked() -> None:
    with fake_server(says("a")) as listed, fake_server(says("b")) as other:
        policy = EndpointPolicy.of([f"{listed.url}/"], any_endpoint=False)
        async with servers(policy=policy) as engines:
            await answer(engines, question(listed))
            with pytest.raises(EngineError, match="--endpoint"):
                await answer(engines, question(other))
            with pytest.raises(EngineError, match="--endpoint"):
                await engines.models(other.url, SecretStr(KEY))
    assert listed.asked
    assert not other.asked


async def test_a_server_that_calls_its_models_after_the_key_does_not_get_it_into_the_menu() -> None:
    names = ["a-model", KEY, f"models/{KEY}-1", KEY.replace("-", "%2d"), " ".join(KEY)]
    with fake_server(lambda asked: Reply(200, {"data": [{"id": name} for name in names]})) as server:
        async with servers() as engines:
            assert await engines.models(server.url, SecretStr(KEY)) == ("a-model",)
            assert await engines.models(server.url, SecretStr("")) == tuple(names)


PROGRAM = """
import asyncio, sys
from remote_room import answer, question, servers, text_of
from pydantic import SecretStr

async def ask(url):
    async with servers() as engines:
        for messages_only in (False, True):
            for key in ("", "mine"):
                chunks = await answer(engines, question(url, messages_only=messages_only, key=SecretStr(key)))
                print(text_of(chunks))
        await engines.models(url, SecretStr(""))

asyncio.run(ask(sys.argv[1]))
"""


@pytest.mark.parametrize("offline", ["1", ""])
def test_this_machines_token_stays_here_and_offline_hub_or_not_servers_are_asked(offline: str, tmp_path: Path) -> None:
    """In a process of its own, for huggingface_hub reads the environment once; its Hub is a server that listens."""

    def answer_all(asked):  # type: ignore[no-untyped-def]
        return Reply(200, {"data": []}) if asked.method == "GET" else says("네")(asked)

    with fake_server(answer_all) as server, fake_server(refuses(404)) as hub:
        environment = {
            **os.environ,
            "HF_TOKEN": MACHINES_TOKEN,
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": f"http://{hub.host}",
            "HF_HUB_OFFLINE": offline,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        }
        for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
            environment.pop(name, None)
        command = [sys.executable, "-W", "error", "-c", PROGRAM, server.url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["네"] * 4
    assert sent(server) == ["Bearer -", "Bearer mine", "Bearer -", "Bearer mine", "Bearer -"]
    assert MACHINES_TOKEN not in json.dumps([[*each.headers.items(), each.body] for each in server.asked])
    assert not hub.asked, "nobody was asked but the server"


def sent(server: FakeServer) -> list[str]:
    return [each.headers["authorization"] for each in server.asked]

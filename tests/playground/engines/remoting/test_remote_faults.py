"""What servers do wrong: each fault is a sentence with the host and what to do, and what was said before it stays."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from fake_server import (
    CUT,
    STALL,
    Answer,
    Asked,
    Reply,
    Stream,
    chunk,
    fake_server,
    in_turn,
    refuses,
    says,
    streams,
    usage,
)
from pydantic import SecretStr
from remote_room import HASTY, KEY, QUICK, answer, both, broken_answer, question, servers, text_of

from playground.engines.remoting.connection import LINE_LIMIT, Patience
from playground.errors import (
    ContextFullError,
    EngineBusyError,
    EngineError,
    SamplingError,
)

HELLO = ("안녕",)

MID_STREAM: dict[str, tuple[tuple[Any, ...], str]] = {
    "cut": ((HELLO, CUT), "broke while it answered"),
    "no end": ((HELLO,), "without saying why"),
    "done without an end": ((HELLO, "data: [DONE]\n\n"), "without saying why"),
    "garbage": ((HELLO, "data: {daft\n\n"), "it may be no server of models"),
    "a list": ((HELLO, "data: [1]\n\n"), "it may be no server of models"),
    "a number": ((HELLO, "data: 7\n\n"), "it may be no server of models"),
    "deep": ((HELLO, f"data: {'[' * 100_000}\n\n"), "it may be no server of models"),
    "no choice": ((HELLO, 'data: {"choices": [7]}\n\n'), "it may be no server of models"),
    "error": ((HELLO, {"error": {"message": "CUDA went away", "code": 500}}), "It says: CUDA went away"),
    "error of llama.cpp": ((HELLO, 'error: {"code": 500, "message": "CUDA went"}\n\n'), "It says: CUDA went"),
    "error as text": ((HELLO, {"error": "CUDA went away"}), "It says: CUDA went away"),
    "filtered": ((HELLO, ("", "content_filter"), usage(1, 1)), "held back the rest"),
    "given up": ((HELLO, ("", "abort")), "given up"),
    "endless line": ((HELLO, "data: " + "x" * (LINE_LIMIT + 10)), "more at a time than any answer has"),
}


@both
@pytest.mark.parametrize("fault", MID_STREAM)
async def test_what_was_said_before_a_fault_stays(messages_only: bool, fault: str) -> None:
    steps, words = MID_STREAM[fault]
    with fake_server(streams(*steps)) as server:
        async with servers() as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert said == "안녕"
    assert isinstance(error, EngineError)
    assert words in str(error)
    assert server.host in str(error)
    assert len(server.asked) == 1


@both
async def test_an_answer_whose_text_is_none_is_refused(messages_only: bool) -> None:
    def numbers(asked: Asked) -> Stream:
        return Stream([chunk(asked, 7)])  # type: ignore[arg-type]

    with fake_server(numbers) as server:
        async with servers() as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert (said, type(error)) == ("", EngineError)


@both
async def test_a_server_that_falls_silent_is_given_up(messages_only: bool) -> None:
    with fake_server(streams(HELLO, STALL)) as server:
        async with servers(HASTY) as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
        assert server.gone.wait(10)
    assert said == "안녕"
    assert "gone on with its answer for 0.3 seconds" in str(error)


@both
@pytest.mark.parametrize("steps", [(STALL,), (": ping\n\n", STALL)], ids=["nothing", "only a comment"])
async def test_a_server_that_never_begins_is_given_up(messages_only: bool, steps: Any) -> None:
    with fake_server(streams(*steps)) as server:
        async with servers(HASTY) as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
        assert server.gone.wait(10)
    assert said == ""
    assert "begun to answer for 0.3 seconds" in str(error)


def drips(asked: Asked) -> Stream:
    """A word now and then, for ever: never so late that it has stalled."""
    return Stream(chunk(asked, "word ") for _ in iter(lambda: time.sleep(0.05), "never"))


@both
async def test_a_server_that_goes_on_and_on_is_left(messages_only: bool) -> None:
    patience = replace(QUICK, whole_s=0.6, a_token_s=0.001)
    with fake_server(drips) as server:
        async with servers(patience) as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
        assert server.gone.wait(10)
    assert said.startswith("word ")
    assert "end of its answer within 0.01 minutes" in str(error)
    assert len(server.asked) == 1


def test_a_long_answer_has_longer() -> None:
    assert Patience().answer_s(512) == Patience().whole_s == 1800
    assert Patience().answer_s(4096) == 8192


@both
async def test_signs_of_life_are_no_answer(messages_only: bool) -> None:
    """A server that sends comments for ever has the same time for its first token as any other."""
    with fake_server(streams(*[": ping\n\n"] * 3, *[("",)] * 3, STALL)) as server:
        async with servers(HASTY) as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert "begun to answer" in str(error)


@both
async def test_an_answer_is_over_with_its_reason_whatever_follows(messages_only: bool) -> None:
    for after in (STALL, CUT, "data: {daft\n\n"):
        with fake_server(streams(HELLO, ("", "stop"), after)) as server:
            async with servers(HASTY) as engines:
                chunks = await answer(engines, question(server, messages_only=messages_only))
        assert (text_of(chunks), chunks[-1].finish_reason) == ("안녕", "stop")


REFUSALS: list[tuple[Answer, type[Exception], str]] = [
    (refuses(401, {"error": {"message": "Invalid token"}}), EngineError, "does not accept the key"),
    (refuses(403, "Forbidden"), EngineError, "does not accept the key"),
    (refuses(404, {"error": {"message": "The model `m` does not exist."}}), EngineError, "no model 'm'"),
    (refuses(404, {"detail": "Not Found"}), EngineError, "ends in /v1"),
    (refuses(400, "This model's maximum context length is 9 tokens"), ContextFullError, "shorten the prompt"),
    (refuses(413, "Payload Too Large"), ContextFullError, "shorten the prompt"),
    (refuses(422, {"detail": [{"loc": ["body", "stop"], "msg": "too many"}]}), SamplingError, "stop texts"),
    (refuses(400, {"error": "Invalid 'stop': array too long, maximum length 4"}), SamplingError, "stop texts"),
    (refuses(400, ["odd"]), EngineError, "refuses this request (400)"),
    (refuses(418, "<html>teapot</html>"), EngineError, "(418)"),
    (refuses(500, "Internal Server Error"), EngineError, "failed (500)"),
    (refuses(429, "Slow down", retry_after="3600"), EngineBusyError, "no more requests"),
    (refuses(503, {"error": {"message": "Loading model"}}), EngineBusyError, "not ready"),
    (refuses(200, {"error": {"message": "quota exceeded"}}), EngineError, "It says: quota exceeded"),
    (refuses(200, {"text": "all at once"}), EngineError, "instead of a stream"),
    (lambda asked: Reply(200, "<html>", {"content-type": "text/html"}), EngineError, "no server of models"),
    (lambda asked: Reply(200, "x", {"content-encoding": "gzip"}), EngineError, "compressed"),
]


@both
@pytest.mark.parametrize("case", range(len(REFUSALS)))
async def test_refusals_are_sentences(messages_only: bool, case: int) -> None:
    reply, kind, words = REFUSALS[case]
    with fake_server(reply) as server:
        async with servers() as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert said == ""
    assert type(error) is kind
    assert words in str(error)
    assert server.host in str(error)


@both
async def test_a_server_that_wants_a_key_is_told_apart_from_one_that_refuses_it(messages_only: bool) -> None:
    with fake_server(refuses(401)) as server:
        async with servers() as engines:
            with pytest.raises(EngineError, match="wants a key"):
                await answer(engines, question(server, messages_only=messages_only, key=SecretStr("")))


BUSY = (refuses(429), refuses(429, retry_after="0"), refuses(502), refuses(503, "Loading model"), refuses(504))


@both
@pytest.mark.parametrize("busy", BUSY)
async def test_a_busy_server_is_asked_again_until_it_answers(messages_only: bool, busy: Answer) -> None:
    with fake_server(in_turn(busy, busy, says("하나"))) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "하나"
    assert len(server.asked) == 3
    assert server.asked[0].body == server.asked[2].body


@both
async def test_it_is_asked_three_times_at_most(messages_only: bool) -> None:
    with fake_server(refuses(503)) as server:
        async with servers() as engines:
            with pytest.raises(EngineBusyError):
                await answer(engines, question(server, messages_only=messages_only))
    assert len(server.asked) == 3


async def test_a_server_that_asks_for_a_long_pause_is_not_waited_for() -> None:
    with fake_server(refuses(429, retry_after="11")) as server:
        async with servers() as engines:
            with pytest.raises(EngineBusyError):
                await answer(engines, question(server))
    assert len(server.asked) == 1


@both
@pytest.mark.parametrize("fault", [(CUT,), ("data: {daft\n\n",), ({"error": "no"},)], ids=["cut", "garbage", "error"])
async def test_what_has_begun_is_not_asked_again(messages_only: bool, fault: Any) -> None:
    with fake_server(streams(*fault)) as server:
        async with servers() as engines:
            with pytest.raises(EngineError):
                await answer(engines, question(server, messages_only=messages_only))
    assert len(server.asked) == 1


@both
async def test_a_server_that_is_not_there(messages_only: bool) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = nobody.getsockname()[1]
        async with servers() as engines:
            url = f"http://127.0.0.1:{port}/v1"
            with pytest.raises(EngineError, match="cannot be reached"):
                await answer(engines, question(url, messages_only=messages_only))
            with pytest.raises(EngineError, match="cannot be reached"):
                await engines.models(url, SecretStr(""))


@both
async def test_a_server_that_speaks_no_tls(messages_only: bool) -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            url = server.url.replace("http:", "https:")
            with pytest.raises(EngineError, match="https"):
                await answer(engines, question(url, messages_only=messages_only))


async def test_models_are_listed_and_lists_that_are_none_are_told() -> None:
    lists: list[tuple[Any, tuple[str, ...]]] = [
        ({"object": "list", "data": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}, ("a", "b")),
        ({"data": []}, ()),
        ([{"id": "x"}], ("x",)),
        ({"data": [{"id": "n" * 1000}, {"id": "ok"}, {"id": "\x1b[2J"}]}, ("ok",)),
        ({"data": [{"id": str(number)} for number in range(2000)]}, tuple(map(str, range(1000)))),
    ]
    for body, names in lists:
        with fake_server(lambda asked, body=body: Reply(200, body)) as server:  # type: ignore[misc]
            async with servers() as engines:
                assert await engines.models(server.url, SecretStr(KEY)) == names
        assert server.asked[0].path == "/v1/models"
    wordy = [{"id": f"m{number}", "description": "d" * 3000} for number in range(800)]
    with fake_server(lambda asked: Reply(200, {"data": wordy})) as server:
        async with servers() as engines:
            assert len(await engines.models(server.url, SecretStr(""))) == len(wordy)
    for bad in ({"models": []}, "hello", {"data": 7}, [7]):
        with fake_server(lambda asked, bad=bad: Reply(200, bad)) as server:  # type: ignore[misc]
            async with servers() as engines:
                with pytest.raises(EngineError, match="no server of models"):
                    await engines.models(server.url, SecretStr(""))
    with fake_server(refuses(404)) as server:
        async with servers() as engines:
            assert await engines.models(server.url, SecretStr("")) == ()


async def test_a_list_of_models_without_end_is_not_read() -> None:
    with fake_server(lambda asked: Stream(["[\n", *[" " * 65_536 + "\n"] * 260, STALL], "application/json")) as server:
        async with servers() as engines:
            with pytest.raises(EngineError, match="more at a time"):
                await asyncio.wait_for(engines.models(server.url, SecretStr("")), 8)

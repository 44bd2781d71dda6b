"""Answers of servers in which there is no word, or not yet: thoughts, calls of tools, marks, nothing at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_server import STALL, Asked, Stream, chunk, fake_server, streams, usage
from remote_room import HASTY, answer, both, broken_answer, question, servers, text_of

from playground.errors import EngineError


def thinks(asked: Asked, thought: str = "hm", name: str = "reasoning_content") -> dict[str, Any]:
    words = {name: thought}
    return chunk(asked, None, **({"delta": {"content": None, **words}} if asked.in_chat else words))


@both
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_thoughts_are_a_sign_of_life_and_no_answer(messages_only: bool, name: str) -> None:
    may_answer = threading.Event()

    def answer_after_thoughts(asked: Asked) -> Stream:
        thoughts = [thinks(asked, "42?", name) for _ in range(3)]
        return Stream([*thoughts, may_answer, chunk(asked, "42"), chunk(asked, "", "stop")])

    with fake_server(answer_after_thoughts) as server:
        async with servers(replace(HASTY, between_s=20)) as engines:
            whole = asyncio.create_task(answer(engines, question(server, messages_only=messages_only)))
            done, _ = await asyncio.wait([whole], timeout=3 * HASTY.first_s)  # the first token's time is over
            assert not done
            may_answer.set()
            assert text_of(await whole) == "42"


@both
@pytest.mark.parametrize("reason", ["stop", "length"])
async def test_a_server_that_only_thinks_has_not_answered(messages_only: bool, reason: str) -> None:
    with fake_server(lambda asked: Stream([thinks(asked), chunk(asked, "\n", reason)])) as server:
        async with servers() as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert "only thought" in str(error)
    assert "longer answer" in str(error)


def calls(asked: Asked, **more: Any) -> dict[str, Any]:
    called = {"tool_calls": [{"index": 0, "function": {"name": "search", "arguments": "{}"}}]}
    return chunk(asked, None, **({"delta": {"content": None, **called}} if asked.in_chat else called), **more)


WORDLESS: dict[str, tuple[Callable[[Asked], list[Any]], str]] = {
    "nothing": (lambda asked: [chunk(asked, "", "stop"), usage(7, 0)], "without a word"),
    "nothing to see": (lambda asked: [chunk(asked, " \n"), chunk(asked, "", "stop")], "without a word"),
    "a tool": (lambda asked: [calls(asked), chunk(asked, "", "tool_calls")], "called a tool"),
    "the end of a call alone": (lambda asked: [chunk(asked, "", "tool_calls")], "without a word"),
    "a word, then a tool": (lambda asked: [chunk(asked, "안녕"), calls(asked), chunk(asked, "", "stop")], "a tool"),
}


@both
@pytest.mark.parametrize("what", WORDLESS)
async def test_an_answer_without_a_word_says_so(messages_only: bool, what: str) -> None:
    steps, words = WORDLESS[what]
    with fake_server(lambda asked: Stream([*steps(asked), "data: [DONE]\n\n"])) as server:
        async with servers() as engines:
            said, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert said.strip() == ("안녕" if "word" in what else "")
    assert isinstance(error, EngineError)
    assert words in str(error)
    assert len(server.asked) == 1


@both
async def test_a_tool_is_a_sign_of_life(messages_only: bool) -> None:
    with fake_server(lambda asked: Stream([calls(asked), STALL])) as server:
        async with servers(replace(HASTY, first_s=20)) as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert "for 0.3 seconds" in str(error)


@both
async def test_a_mark_before_the_first_letter_is_no_part_of_the_answer(messages_only: bool) -> None:
    """Some servers begin with the mark that says in which order the bytes of their letters come."""
    marked = [b"\xef\xbb", b"\xbf", ("안녕",), ("", "stop")]
    with fake_server(streams(*marked)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert (text_of(chunks), chunks[-1].finish_reason) == ("안녕", "stop")


@both
async def test_a_server_that_falls_silent_while_it_thinks_is_given_up(messages_only: bool) -> None:
    with fake_server(lambda asked: Stream([thinks(asked), STALL])) as server:
        async with servers(replace(HASTY, first_s=20)) as engines:
            _, error = await broken_answer(engines, question(server, messages_only=messages_only))
    assert "for 0.3 seconds" in str(error)

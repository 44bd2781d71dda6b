"""An answer of a server, in both APIs: its text in whole graphemes, its end, its cost, what the server was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regex
from fake_server import Asked, Stream, chunk, fake_server, says, streams, usage
from remote_room import answer, both, question, real_encoder, servers, text_of

from playground.errors import ContextFullError, PromptError
from playground.types import AdapterUse, GenerationRequest, Message, PromptOptions


@both
async def test_an_answer_comes_piece_by_piece_with_its_end_and_cost(messages_only: bool) -> None:
    with fake_server(says("구름", "은 ", "희다")) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "구름은 희다"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "stop"
    cost = chunks[-1].usage
    assert cost
    assert cost.completion_tokens == 3
    times = chunks[-1].timings
    assert times
    assert times.prefill_s > 0


@both
async def test_the_first_chunk_says_how_the_prompt_was_sent(messages_only: bool) -> None:
    with fake_server(says("a", "b")) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert [chunk.sent_as for chunk in chunks] == [
        "messages" if messages_only else "token_ids",
        *[None] * len(chunks[1:]),
    ]


async def test_the_server_is_given_the_ids_that_the_preview_shows() -> None:
    asked = question("http://127.0.0.1:1", "नमस्ते, 구름")
    prompt = real_encoder().encode(asked.messages, asked.options, 1)
    with fake_server(says("a")) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, "नमस्ते, 구름"))
    assert server.bodies()[0]["prompt"] == list(prompt.token_ids)
    cost = chunks[-1].usage
    assert cost
    assert cost.prompt_tokens == len(prompt.token_ids)  # not the 7 that the server counts


async def test_messages_go_as_they_are() -> None:
    messages = (
        Message(role="system", content="짧게"),
        Message(role="user", content="하나"),
        Message(role="assistant", content="둘"),
        Message(role="user", content="셋"),
    )
    with fake_server(says("넷")) as server:
        async with servers() as engines:
            await answer(engines, question(server, messages_only=True, messages=messages))
    assert server.bodies("chat/completions")[0]["messages"] == [each.model_dump() for each in messages]


SAMPLING: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": 11, "max_new_tokens": 17}


@both
async def test_sampling_goes_along_and_what_is_switched_off_too(messages_only: bool) -> None:
    route = "chat/completions" if messages_only else "completions"
    with fake_server(says("a")) as server:
        async with servers() as engines:
            await answer(engines, question(server, messages_only=messages_only, **SAMPLING))
            await answer(
                engines,
                question(server, messages_only=messages_only, **SAMPLING, top_k=3, repetition_penalty=1.1, stop=("x",)),
            )
    plain, full = server.bodies(route)
    expected = {"model": "m", "stream": True, "temperature": 0.5, "top_p": 0.9, "seed": 11, "max_tokens": 17}
    assert {name: plain[name] for name in expected} == expected
    assert (plain["top_k"], plain["repetition_penalty"]) == (-1, 1.0)
    assert "stop" not in plain
    assert {name: full[name] for name in full if full[name] != plain.get(name)} == {
        "top_k": 3,
        "repetition_penalty": 1.1,
        "stop": ["x"],
    }


@both
async def test_greedy_is_a_temperature_of_zero(messages_only: bool) -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            await answer(engines, question(server, messages_only=messages_only))
    assert server.asked[0].body["temperature"] == 0


async def test_an_answer_is_no_longer_than_the_context_leaves() -> None:
    prompt = real_encoder().encode(question("http://h").messages)
    with fake_server(says("a")) as server:
        async with servers() as engines:
            await answer(engines, question(server, max_new_tokens=100_000))
            await answer(engines, question(server, max_new_tokens=100_000, messages_only=True))
    assert server.bodies()[0]["max_tokens"] == prompt.room
    assert server.bodies("chat/completions")[0]["max_tokens"] == 100_000  # the server knows its own prompt


async def test_a_prompt_that_fills_the_context_is_not_sent() -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            with pytest.raises(ContextFullError):
                await answer(engines, question(server, "구름 " * 2000))
    assert not server.asked


@both
@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("eos_token", "stop"),
        ("tool_calls", "stop"),
        ("max_tokens", "length"),
    ],
)
async def test_reasons_are_understood(messages_only: bool, reason: str, ours: str) -> None:
    with fake_server(says("a", finish_reason=reason)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert chunks[-1].finish_reason == ours


@both
async def test_a_stream_may_end_without_a_word_or_with_comments_and_blank_events(messages_only: bool) -> None:
    """As transformers serve ends it: no [DONE]; and with what proxies put in to keep a connection open."""
    steps = (
        ": ping\n\n",
        "event: message\nid: 7\nretry: 10\n",
        ("하",),
        "data:\n\n",
        "\r\n: ping\r\n\r\n",
        usage(1, 1),
        ("나",),
        ("", "stop"),
        "data:\n\ndata: \r\n\r\n",
        ": bye",
    )
    with fake_server(streams(*steps)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "하나"
    assert chunks[-1].finish_reason == "stop"


@both
async def test_usage_may_come_with_the_last_chunk_or_not_at_all(messages_only: bool) -> None:
    last = {"usage": {"prompt_tokens": 5, "completion_tokens": 9}}

    def with_usage(asked: Asked) -> Stream:
        return Stream([chunk(asked, "a"), chunk(asked, "", "stop") | last])

    with fake_server(with_usage) as server:
        async with servers() as engines:
            told = (await answer(engines, question(server, messages_only=messages_only)))[-1].usage
    with fake_server(streams(("a",), ("", "stop"))) as server:
        async with servers() as engines:
            untold = (await answer(engines, question(server, messages_only=messages_only)))[-1].usage
    assert told
    assert told.completion_tokens == 9
    assert untold is None


HARD = ("👩‍👩‍👧‍👦", "각", "क्ष्म", "🇰🇷", "é", "நி", "ಕ್ಷ")


@both
async def test_no_delta_cuts_a_character_however_the_server_cuts(messages_only: bool) -> None:
    text = "".join(HARD) + "!"
    with fake_server(says(*text)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == text
    whole = regex.findall(r"\X", text)
    assert len([chunk for chunk in chunks if chunk.delta]) > 3
    for chunk_ in chunks:
        assert all(cluster in whole for cluster in regex.findall(r"\X", chunk_.delta))


@both
async def test_halves_of_an_emoji_are_joined_and_one_without_the_other_is_no_crash(messages_only: bool) -> None:
    def answer_in_halves(asked: Asked) -> Stream:
        pieces = [json.dumps(chunk(asked, piece)) for piece in ("a\ud83d", "\ude00", "b", "\ud83d", "c")]
        return Stream([*(f"data: {piece}\n\n" for piece in pieces), chunk(asked, "", "stop")])

    with fake_server(answer_in_halves) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only))
    assert text_of(chunks) == "a😀b\ufffdc"
    assert all(chunk.delta.encode() is not None for chunk in chunks)


@both
async def test_replacement_characters_are_the_servers_and_stay(messages_only: bool) -> None:
    with fake_server(says("\ufffd", "\ufffd", "구")) as server:
        async with servers() as engines:
            assert text_of(await answer(engines, question(server, messages_only=messages_only))) == "\ufffd\ufffd구"


@both
async def test_separators_in_a_text_end_no_line(messages_only: bool) -> None:
    text = "one\u2028two\u2029three\x85four"
    with fake_server(says(text)) as server:
        async with servers() as engines:
            assert text_of(await answer(engines, question(server, messages_only=messages_only))) == text


@both
async def test_bytes_may_be_cut_anywhere(messages_only: bool) -> None:
    def answer_in_bytes(asked: Asked) -> Stream:
        events = [chunk(asked, "각\u2028क्ष"), chunk(asked, "", "stop")]
        data = "".join(f"data: {json.dumps(each, ensure_ascii=False)}\r\n\r\n" for each in events).encode()
        return Stream([data[place : place + 1] for place in range(len(data))])

    with fake_server(answer_in_bytes) as server:
        async with servers() as engines:
            assert text_of(await answer(engines, question(server, messages_only=messages_only))) == "각\u2028क्ष"


@both
async def test_a_stop_text_that_the_server_lets_through_ends_the_answer_and_the_connection(messages_only: bool) -> None:
    with fake_server(says("하나 ##", "# 둘", *["셋"] * 5000)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only, stop=("###",)))
        assert server.gone.wait(10)
    assert text_of(chunks) == "하나 "
    assert chunks[-1].finish_reason == "stop"


async def test_a_template_of_the_users_is_not_lost_without_a_word() -> None:
    options = PromptOptions(template="{{ messages[0].content }}")
    with fake_server(says("a")) as server:
        async with servers() as engines:
            with pytest.raises(PromptError, match="template"):
                await answer(engines, question(server, messages_only=True, options=options))
            assert not server.asked
            assert (await answer(engines, question(server, options=options)))[0].sent_as == "token_ids"


async def test_tokens_come_where_the_server_tells_them() -> None:
    steps = (("가", None), ("나", None), ("", "stop"))
    ids = iter(([5, 6], [7], [2]))

    def told(asked: Asked) -> Stream:
        return Stream([chunk(asked, text, reason, token_ids=next(ids)) for text, reason in steps])

    with fake_server(told) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server))
    assert [token for each in chunks for token in each.token_ids] == [5, 6, 7, 2]


async def test_an_adapter_is_a_model_there_and_none_here() -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            with pytest.raises(Exception, match="adapters are models"):
                await answer(engines, question(server, adapter=AdapterUse(id="x", revision="1")))
            await answer(engines, question(server, model="kullm3-casual"))
    assert [body["model"] for body in server.bodies()] == ["kullm3-casual"]


async def test_turns_that_the_context_drops_are_counted() -> None:
    old = [Message(role=role, content="구름 " * 300) for role in ("user", "assistant")] * 2
    messages = (*old, Message(role="user", content="안녕"))
    with fake_server(says("a")) as server:
        async with servers() as engines:
            options = PromptOptions(when_full="drop_oldest")
            asked: GenerationRequest = question(server, messages=messages, options=options)
            cost = (await answer(engines, asked))[-1].usage
    assert cost
    assert cost.dropped_messages > 0

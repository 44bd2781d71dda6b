"""Answers of servers that end early: aborted, closed, cancelled, from other threads; the server sees each at once."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from fake_server import STALL, Answer, Asked, FakeServer, Stream, chunk, fake_server, says, streams
from remote_room import answer, both, engine_for, question, real_encoder, servers, text_of

from playground.engines.remoting.course import LETTERS_A_TOKEN, LETTERS_MORE
from playground.engines.remoting.relay import AHEAD, Relay
from playground.errors import AdapterError, EngineClosedError, EngineError
from playground.types import GenerationChunk, GenerationRequest

BEGINS = streams(("안녕",), ("하",), STALL)


async def gone(server: FakeServer) -> bool:
    return await asyncio.to_thread(server.gone.wait, 10)


async def rest(chunks: AsyncGenerator[GenerationChunk, None]) -> list[GenerationChunk]:
    return [chunk async for chunk in chunks]


@both
async def test_an_abort_ends_the_answer_with_what_was_held_back_and_closes_the_connection(messages_only: bool) -> None:
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            request = question(server, messages_only=messages_only)
            async with aclosing(engine_for(engines, request).stream(request)) as chunks:
                got = [await anext(chunks)]
                await asyncio.to_thread(server.stalled.wait, 10)
                await engines.abort(request.request_id)
                got += await rest(chunks)
            assert await gone(server)
    assert text_of(got) == "안녕하"
    assert got[-1].finish_reason == "abort"


@both
async def test_an_abort_before_the_first_word(messages_only: bool) -> None:
    with fake_server(streams(STALL)) as server:
        async with servers() as engines:
            request = question(server, messages_only=messages_only)
            whole = asyncio.create_task(answer(engines, request))
            await asyncio.to_thread(server.stalled.wait, 10)
            await engine_for(engines, request).abort(request.request_id)
            chunks = await whole
            assert await gone(server)
    assert [chunk.finish_reason for chunk in chunks] == ["abort"]


@both
async def test_closing_the_generator_closes_the_connection_before_it_returns(messages_only: bool) -> None:
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            request = question(server, messages_only=messages_only)
            chunks = engine_for(engines, request).stream(request)
            await anext(chunks)
            await chunks.aclose()
            assert await gone(server)
            server.answer = says("다시")
            assert text_of(await answer(engines, request)) == "다시"  # the id is free again


@both
async def test_cancelling_who_waits_closes_the_connection(messages_only: bool) -> None:
    with fake_server(streams(STALL)) as server:
        async with servers() as engines:
            whole = asyncio.create_task(answer(engines, question(server, messages_only=messages_only)))
            await asyncio.to_thread(server.stalled.wait, 10)
            whole.cancel()
            with pytest.raises(asyncio.CancelledError):
                await whole
            assert await gone(server)


@both
async def test_closing_the_door_tells_all_that_wait(messages_only: bool) -> None:
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            requests = [question(server, messages_only=messages_only) for _ in range(2)]
            made_before = engine_for(engines, requests[0])
            running = [asyncio.create_task(answer(engines, request)) for request in requests]
            while len(server.asked) < 2:
                await asyncio.sleep(0.01)
            await engines.close()
            ended = await asyncio.gather(*running, return_exceptions=True)
            assert [type(each) for each in ended] == [EngineClosedError] * 2
            with pytest.raises(EngineClosedError):
                await rest(made_before.stream(requests[0]))
            with pytest.raises(EngineClosedError):
                engine_for(engines, requests[0])
            await engines.close()


async def test_closing_an_engine_ends_its_own_answers_alone() -> None:
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            first, second = question(server), question(server)
            mine, other = engine_for(engines, first), engine_for(engines, second)
            async with aclosing(mine.stream(first)) as ending, aclosing(other.stream(second)) as going:
                await anext(ending)
                await anext(going)
                await mine.close()
                with pytest.raises(EngineClosedError):
                    await rest(ending)
                assert (mine.alive, other.alive) == (False, True)
                await other.abort(second.request_id)
                assert (await rest(going))[-1].finish_reason == "abort"
            with pytest.raises(EngineClosedError):
                await anext(mine.stream(first))


async def test_an_id_that_is_being_answered_is_refused_and_unknown_ones_are_ignored() -> None:
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            request = question(server)
            await engines.abort("nobody")
            async with aclosing(engine_for(engines, request).stream(request)) as chunks:
                await anext(chunks)
                with pytest.raises(EngineError, match="is being answered"):
                    await answer(engines, request)
                await engines.abort(request.request_id)
                assert (await rest(chunks))[-1].finish_reason == "abort"


async def test_streams_on_several_loops_are_ended_from_another_thread() -> None:
    """As Gradio and tests use it: a loop of its own in each thread, one desk for all."""
    results: list[list[GenerationChunk]] = []
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            requests = [question(server) for _ in range(3)]
            await asyncio.to_thread(real_encoder)

            def run(request: GenerationRequest) -> None:
                results.append(asyncio.run(answer(engines, request)))

            threads = [threading.Thread(target=run, args=(request,)) for request in requests]
            for thread in threads:
                thread.start()
            while len(server.asked) < 3:
                await asyncio.sleep(0.01)
            for request in requests:
                await engines.abort(request.request_id)
            for thread in threads:
                await asyncio.to_thread(thread.join)
    assert [chunks[-1].finish_reason for chunks in results] == ["abort"] * 3


@both
async def test_two_answers_at_a_time_do_not_wait_for_each_other(messages_only: bool) -> None:
    with fake_server(BEGINS) as slow, fake_server(says("빨리")) as fast:
        async with servers() as engines:
            request = question(slow, messages_only=messages_only)
            async with aclosing(engine_for(engines, request).stream(request)) as chunks:
                await anext(chunks)
                assert text_of(await answer(engines, question(fast, messages_only=messages_only))) == "빨리"


def endless(step: Callable[[Asked], Any]) -> Answer:
    return lambda asked: Stream(step(asked) for _ in itertools.count())


ENDLESS = {
    "words": lambda asked: chunk(asked, "word "),
    "tokens": lambda asked: chunk(asked, "", token_ids=[5] * 40),
    "nothing": lambda asked: chunk(asked, ""),
    "words behind the end": lambda asked: chunk(asked, "word ", "length"),
}


@both
@pytest.mark.parametrize("what", ENDLESS)
async def test_a_server_that_never_ends_its_answer_is_left_with_what_it_said(messages_only: bool, what: str) -> None:
    with fake_server(endless(ENDLESS[what])) as server:
        async with servers() as engines:
            request = question(server, messages_only=messages_only, max_new_tokens=5)
            chunks = await asyncio.wait_for(answer(engines, request), 30)
        assert await gone(server)
    assert chunks[-1].finish_reason == "length"
    assert len(text_of(chunks)) <= 5 * LETTERS_A_TOKEN + LETTERS_MORE + len("word ")
    assert sum(len(each.token_ids) for each in chunks) <= 5 * LETTERS_A_TOKEN + LETTERS_MORE + 40


@both
async def test_an_answer_of_long_tokens_is_let_be(messages_only: bool) -> None:
    with fake_server(says(*["=" * LETTERS_A_TOKEN] * 5)) as server:
        async with servers() as engines:
            chunks = await answer(engines, question(server, messages_only=messages_only, max_new_tokens=5))
    assert (len(text_of(chunks)), chunks[-1].finish_reason) == (5 * LETTERS_A_TOKEN, "stop")


async def test_what_a_server_cannot_do_is_said() -> None:
    with fake_server(says("a")) as server:
        async with servers() as engines:
            request = question(server)
            engine = engine_for(engines, request)
            with pytest.raises(EngineError, match="only while it answers"):
                await engine.score(request, (1, 2))
            with pytest.raises(AdapterError, match="models of its own"):
                engine.attach(None, 1.0, 1)  # type: ignore[arg-type]
            assert engine.memory() == ()
            assert engine.model_id == request.model_id
    assert not server.asked


async def test_a_reader_that_takes_nothing_holds_the_server_back() -> None:
    made = 0

    async def numbers():  # type: ignore[no-untyped-def]
        nonlocal made
        while True:
            made += 1
            yield made

    relay = Relay(numbers())
    for _ in range(10):
        await asyncio.sleep(0)
    assert made == AHEAD
    assert [await relay.take() for _ in range(3)] == [1, 2, 3]
    await relay.close()


async def test_nothing_is_left_behind() -> None:
    """No task, no connection: the warnings of either would fail this."""
    with fake_server(BEGINS) as server:
        async with servers() as engines:
            for messages_only in (False, True):
                request = question(server, messages_only=messages_only)
                async with aclosing(engine_for(engines, request).stream(request)) as chunks:
                    await anext(chunks)
            gc.collect()
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others

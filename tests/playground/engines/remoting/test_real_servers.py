"""Two real servers, one for each stand-in: they say what the engines in this process say, side by side, and may die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from placements import placed
from pydantic import SecretStr
from real_server import MODEL_NAME, RealServer, real_servers
from remote_room import answer, broken_answer, catalog, engine_for, question, servers, text_of

from model_registry.demo.corpus import load_language, pairs
from model_registry.demo.standins import STAND_INS
from playground.engines.base import Engine
from playground.engines.checkpoints.loader import load_engine
from playground.engines.remoting.connection import Patience
from playground.types import GenerationRequest

PATIENT = Patience(connect_s=5, first_s=60, between_s=30, backoff_s=0.05)
QUESTIONS = {
    "demo-kullm3": ("안녕하세요", "AI가 뭐야?"),
    "demo-krutrim": ("नमस्ते", "दीपावली क्या है?"),
}
"""Of the corpus that the stand-ins were taught."""
MODELS = tuple(QUESTIONS)

Servers = dict[str, RealServer]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server for each stand-in; both start at the same time."""
    with real_servers(tmp_path_factory.mktemp("servers"), *MODELS) as running:
        yield running


def asked(server: RealServer, model_id: str, text: str, *, messages_only: bool = False) -> GenerationRequest:
    return question(
        server.url, text, model_id=model_id, model=MODEL_NAME, max_new_tokens=450, messages_only=messages_only
    )


@asynccontextmanager
async def in_process(model_id: str) -> AsyncIterator[Engine]:
    spec = catalog().get(model_id)
    engine = await asyncio.to_thread(load_engine, spec, placed(spec, kv_tokens=1024), lambda _: None)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.mark.parametrize("model_id", MODELS)
async def test_a_server_says_what_the_engine_in_this_process_says(real: Servers, model_id: str) -> None:
    """Greedy, to the character; the prompt is our text, for this server takes no ids."""
    async with in_process(model_id) as engine, servers(PATIENT) as engines:
        for text in QUESTIONS[model_id]:
            request = asked(real[model_id], model_id, text)
            theirs = await answer(engines, request)
            async with aclosing(engine.stream(request)) as chunks:
                ours = [chunk async for chunk in chunks]
            assert text_of(theirs) == text_of(ours)
            assert text_of(ours)
            assert theirs[-1].finish_reason == ours[-1].finish_reason == "stop"
            assert theirs[0].sent_as == "text"
            told, counted = theirs[-1].usage, ours[-1].usage
            assert told
            assert counted
            assert told.prompt_tokens == counted.prompt_tokens  # so their tokenizer adds nothing to our text


@pytest.mark.parametrize("model_id", MODELS)
async def test_with_messages_it_says_the_same_for_its_template_is_ours(real: Servers, model_id: str) -> None:
    text = QUESTIONS[model_id][0]
    async with servers(PATIENT) as engines:
        ours = await answer(engines, asked(real[model_id], model_id, text))
        theirs = await answer(engines, asked(real[model_id], model_id, text, messages_only=True))
    assert text_of(theirs) == text_of(ours)
    assert theirs[0].sent_as == "messages"


async def test_a_stop_frees_the_server_for_the_next_question(real: Servers) -> None:
    model_id, text = "demo-kullm3", QUESTIONS["demo-kullm3"][0]
    async with servers(PATIENT) as engines:
        request = asked(real[model_id], model_id, text)
        async with aclosing(engine_for(engines, request).stream(request)) as chunks:
            await anext(chunks)
            await engines.abort(request.request_id)
            rest = [chunk async for chunk in chunks]
        assert rest[-1].finish_reason in ("abort", "stop")
        assert text_of(await answer(engines, asked(real[model_id], model_id, text)))


async def test_what_a_server_lists_is_what_it_has_in_its_cache(real: Servers) -> None:
    async with servers(PATIENT) as engines:
        assert await engines.models(real["demo-kullm3"].url, SecretStr("")) == ()


async def test_killing_one_leaves_what_it_said_and_the_other_untouched(real: Servers) -> None:
    """The last test of this module, for one server is dead afterwards."""
    victim, other = real["demo-kullm3"], real["demo-krutrim"]
    doomed = asked(victim, "demo-kullm3", longest_in_korean())
    async with servers(PATIENT) as engines:
        whole = asyncio.create_task(answer(engines, asked(other, "demo-krutrim", QUESTIONS["demo-krutrim"][1])))
        said, error = await broken_answer(engines, doomed, after_first=victim.kill)
        assert said
        assert f"127.0.0.1:{victim.port} broke while it answered" in str(error)
        assert (await whole)[-1].finish_reason == "stop"
        nothing, error = await broken_answer(engines, doomed)
    assert nothing == ""
    assert "cannot be reached" in str(error)


def longest_in_korean() -> str:
    """The question whose answer is the longest one."""
    return max(pairs(load_language("ko"), STAND_INS["kullm3"].words()), key=lambda pair: len(pair[1]))[0]

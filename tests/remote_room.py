"""What tests of servers elsewhere share: the pool's door with little patience, a real encoder, questions, answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from typing import Any

import pytest
from fake_server import FakeServer
from pydantic import SecretStr

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.engines.remote import RemoteEngine
from playground.engines.remoting.connection import Patience
from playground.engines.remoting.policy import EndpointPolicy
from playground.engines.remoting.servers import RemoteEngines
from playground.prompting.encoder import PromptEncoder
from playground.types import EndpointUse, GenerationChunk, GenerationRequest, Message, SamplingParams

MODEL = "demo-kullm3"
KEY = "sk-tell-nobody-9f8e7d6c5b"
QUICK = Patience(connect_s=2, first_s=10, between_s=10, tries=3, backoff_s=0.01, longest_wait_s=1, last_s=10)
"""No test waits this long; those of time-outs have less."""
both = pytest.mark.parametrize("messages_only", [False, True], ids=["completions", "chat"])
"""By /completions, and by /chat/completions."""

HASTY = Patience(connect_s=2, first_s=0.3, between_s=0.3, backoff_s=0.01, last_s=0.3)
GREEDY = {"temperature": 0.0, "seed": 7}


@cache
def catalog() -> Registry:
    return Registry.load()


@cache
def real_encoder(model_id: str = MODEL) -> PromptEncoder:
    return load_encoder(catalog().get(model_id))


def question(server: FakeServer | str, text: str = "안녕하세요", **changes: Any) -> GenerationRequest:
    """A request for the server's model "m"; `changes` go to the endpoint, the sampling or the request."""
    url = server if isinstance(server, str) else server.url
    parts: dict[str, dict[str, Any]] = {"endpoint": {}, "sampling": {**GREEDY}, "request": {}}
    for name, value in changes.items():
        kinds = {"endpoint": EndpointUse.model_fields, "sampling": SamplingParams.model_fields}
        parts[next((kind for kind, names in kinds.items() if name in names), "request")][name] = value
    endpoint = EndpointUse(**{"url": url, "model": "m", "key": SecretStr(KEY), **parts["endpoint"]})
    asked = {"model_id": MODEL, "messages": (Message(role="user", content=text),), **parts["request"]}
    return GenerationRequest(endpoint=endpoint, sampling=SamplingParams(**parts["sampling"]), **asked)


@asynccontextmanager
async def servers(patience: Patience = QUICK, policy: EndpointPolicy | None = None) -> AsyncIterator[RemoteEngines]:
    """The pool's door to servers; closed at the end."""
    engines = RemoteEngines(policy or EndpointPolicy(any_endpoint=True), patience)
    try:
        yield engines
    finally:
        await engines.close()


def engine_for(engines: RemoteEngines, request: GenerationRequest, spec: ModelSpec | None = None) -> RemoteEngine:
    """The engine that answers a request, with the real encoder of its model."""
    assert request.endpoint is not None

    async def encoder() -> PromptEncoder:
        return await asyncio.to_thread(real_encoder, request.model_id)

    return engines.engine(spec or catalog().get(request.model_id), request.endpoint, encoder)


async def answer(engines: RemoteEngines, request: GenerationRequest) -> list[GenerationChunk]:
    """All chunks of the answer to a request."""
    async with aclosing(engine_for(engines, request).stream(request)) as chunks:
        return [chunk async for chunk in chunks]


async def broken_answer(
    engines: RemoteEngines, request: GenerationRequest, after_first: Callable[[], object] = lambda: None
) -> tuple[str, Exception | None]:
    """What was said, and what was raised then; `after_first` is called once something was said."""
    said = ""
    try:
        async with aclosing(engine_for(engines, request).stream(request)) as chunks:
            async for chunk in chunks:
                if not said:
                    after_first()
                said += chunk.delta
    except Exception as error:
        return said, error
    return said, None


def text_of(chunks: Sequence[GenerationChunk]) -> str:
    return "".join(chunk.delta for chunk in chunks)

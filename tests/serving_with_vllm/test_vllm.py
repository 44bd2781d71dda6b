"""Both stand-ins on a real vLLM: the same greedy tokens as our own engine, adapters, two devices, a panel's stream.

`pytest -m slow tests/serving_with_vllm`. Installs vLLM's CPU build; see tests/vllm_server.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_room import chunks_of, tokens_in
from placements import placed
from remote_room import answer, question, real_encoder, servers, text_of
from vllm_server import environment, vllm_server

from model_registry.architectures.export import export
from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import CheckedAdapter
from playground.adapters.inspect import inspect_adapter
from playground.engines.checkpoints.loader import load_engine
from playground.engines.remoting.connection import Patience
from playground.types import GenerationRequest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TEXTS = ("नमस्ते! आप कैसे हैं?", "안녕하세요, 자기소개 해 주세요.", "Tell me a story about a cloud.")
TOKENS = 60
NEAR = 1e-3
"""How far two programs' probabilities of one token may be apart, in float32."""
KINDS = ("demo-krutrim", "demo-krutrim on two devices", "demo-kullm3")


@dataclass(frozen=True)
class Served:
    """A model of the catalog that vLLM serves at `url`, its adapters by their own names; what the server wrote."""

    spec: ModelSpec
    url: str
    log: Path

    def request(self, text: str, model: str | None = None, **changes: Any) -> GenerationRequest:
        changes = {"max_new_tokens": TOKENS, "model": model or self.spec.id, **changes}
        return question(self.url, text, model_id=self.spec.id, **changes)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("VLLM_ENVIRONMENT")
    return environment(
        Path(kept) if kept else tmp_path_factory.mktemp("vllm"), tmp_path_factory.mktemp("this_repository")
    )


@pytest.fixture(scope="module", params=KINDS)
def served(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    model_id, _, spread = request.param.partition(" ")
    registry, folder = Registry.load(), tmp_path_factory.mktemp("served")
    spec = registry.get(model_id)
    model = spec.weights.path
    assert model is not None
    if spec.architecture == "krutrim":
        model = folder / "exported"
        export(spec, model)
    adapters = [f"{adapter.id}={adapter.weights.path}" for adapter in registry.adapters(spec.id)]
    options = ["--max-model-len", "512", "--enable-lora", "--lora-modules", *adapters]
    options += ["--tensor-parallel-size", "2"] if spread else []
    with vllm_server(programs, folder / "log", model, spec.id, *options) as url:
        yield Served(spec, url, folder / "log")


@asynccontextmanager
async def our_engine(spec: ModelSpec, adapter_id: str | None = None) -> AsyncIterator[Any]:
    """The model, or the model with an adapter, in this process."""
    engine: Any = await asyncio.to_thread(load_engine, spec, placed(spec, kv_tokens=2048), lambda progress: None)
    view = engine
    try:
        if adapter_id is not None:
            view = await asyncio.to_thread(engine.attach, checked(spec, adapter_id), 1.0, 2048)
        yield view
    finally:
        await engine.close()


def checked(spec: ModelSpec, adapter_id: str) -> CheckedAdapter:
    adapter = Registry.load().adapter(adapter_id)
    assert adapter.weights.path is not None
    assert spec.weights.path is not None
    folder = adapter.weights.path.resolve()
    facts = inspect_adapter(folder, base_layers(spec, spec.weights.path))
    return CheckedAdapter(adapter.id, adapter.name, f"sha256:{facts.fingerprint}", spec.id, folder, facts)


def here(request: GenerationRequest, adapter: CheckedAdapter | None = None) -> GenerationRequest:
    """The same request to an engine of this machine."""
    return request.model_copy(update={"endpoint": None, "adapter": adapter.use(1.0) if adapter else None})


def tokens_of(served: Served, request: GenerationRequest) -> tuple[int, ...]:
    """What the server writes to the prompt's ids, asked without any of our engines."""
    assert request.endpoint is not None
    prompt = real_encoder(request.model_id).encode(request.messages, request.options, TOKENS)
    body = {"model": request.endpoint.model, "prompt": list(prompt.token_ids), "max_tokens": TOKENS}
    body |= {"temperature": 0, "return_token_ids": True}
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{served.url}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=120) as response:
        return tuple(json.load(response)["choices"][0]["token_ids"])


async def test_its_greedy_tokens_are_those_of_our_engine(served: Served) -> None:
    async with our_engine(served.spec) as engine:
        for text in TEXTS:
            request = served.request(text)
            ours = tokens_in(await chunks_of(engine, here(request)))
            assert len(ours) > 5
            assert tokens_of(served, request) == ours


async def test_an_adapter_is_a_model_of_its_own_and_answers_as_in_our_engine(served: Served) -> None:
    base = [tokens_of(served, served.request(text)) for text in TEXTS]
    for adapter in Registry.load().adapters(served.spec.id):
        use = checked(served.spec, adapter.id)
        async with our_engine(served.spec, adapter.id) as engine:
            requests = [served.request(text, adapter.id) for text in TEXTS]
            ours = [tokens_in(await chunks_of(engine, here(request, use))) for request in requests]
        assert [tokens_of(served, request) for request in requests] == ours
        assert ours != base


async def test_a_panel_streams_from_it_what_our_engine_says(served: Served) -> None:
    async with our_engine(served.spec) as engine, servers(Patience()) as remote:
        for text in TEXTS:
            request = served.request(text)
            ours = await chunks_of(engine, here(request))
            theirs = await answer(remote, request)
            # vLLM reads an answer as going on from the prompt: a SentencePiece model's first word has its space there.
            assert text_of(theirs).removeprefix(" ") == text_of(ours)
            assert (tokens_in(theirs), theirs[-1].finish_reason) == (tokens_in(ours), ours[-1].finish_reason)
            assert theirs[0].sent_as == "token_ids"
            assert len(theirs) > 5
            assert theirs[-1].usage == ours[-1].usage


async def test_it_tells_the_probabilities_that_our_engine_has(served: Served) -> None:
    request = served.request(TEXTS[2])
    async with our_engine(served.spec) as engine, servers(Patience()) as remote:
        theirs = await answer(remote, request)
        wanted = await engine.score(here(request), tokens_in(theirs))
    told = [token for chunk in theirs for piece in chunk.scores for token in piece.tokens]
    ours = [token for piece in wanted for token in piece.tokens]
    assert len(told) == len(ours)
    assert [token.probability for token in told] == pytest.approx([token.probability for token in ours], abs=NEAR)


async def test_its_own_chat_prompt_is_ours(served: Served) -> None:
    async with servers(Patience()) as remote:
        for text in TEXTS:
            exact = await answer(remote, served.request(text))
            chat = await answer(remote, served.request(text, messages_only=True))
            assert chat[0].sent_as == "messages"
            assert text_of(chat) == text_of(exact)
            assert chat[-1].usage == exact[-1].usage


def test_krutrims_heads_are_split_by_vllm(served: Served) -> None:
    log = served.log.read_text(errors="replace")
    assert ("Fused: Wqkv" in log) == (served.spec.architecture == "krutrim")
    assert "could not be wrapped by any LoRA layer" not in log

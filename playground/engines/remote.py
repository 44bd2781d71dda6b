"""A model that runs elsewhere: an OpenAI-compatible server answers, and the prompt is ours.

Behind the protocol of `engines.base`. Asyncio only; its rooms are in `remoting`. Made by `remoting.servers`, one for
each request. Knows no weights, and of the model what the catalog and its tokenizer say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.base import Engine
from playground.engines.remoting.asking import Accepted, Question, ask
from playground.engines.remoting.connection import Patience, plain_key
from playground.engines.remoting.desk import AbortedError, Desk
from playground.engines.remoting.forms import Learnt, text_form
from playground.engines.remoting.sentences import Site, closed, sentence
from playground.engines.remoting.telling import Telling
from playground.engines.remoting.told import Told
from playground.errors import AdapterError, EngineError, PromptError
from playground.types import DeviceUse, EndpointUse, GenerationChunk, GenerationRequest, ScoredPiece

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder

NO_ADAPTERS = "A server's adapters are models of its own: choose one by its name there, and no adapter here."


class RemoteEngine:
    """
    Args:
        spec: the model that the server answers as.
        endpoint: the server, with its url as the policy wrote it.
        encoder: gives the model's prompt encoder; not called where the messages are sent as they are.
        desk: where running answers are known by their requests.
        learnt: what is known of the servers' habits.
        patience: how long they are waited for.
    """

    def __init__(
        self,
        spec: ModelSpec,
        endpoint: EndpointUse,
        encoder: Callable[[], Awaitable[PromptEncoder]],
        desk: Desk,
        learnt: Learnt,
        patience: Patience,
    ) -> None:
        self.model_id = spec.id
        self._spec = spec
        self._endpoint = endpoint
        self._encoder = encoder
        self._desk = desk
        self._learnt = learnt
        self._patience = patience
        self._closed = False

    @property
    def alive(self) -> bool:
        """See `Engine.alive`: whether the server is there is known when it is asked."""
        return not self._closed

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`. The first chunk says how the prompt was sent; ids of tokens come where servers tell.

        Raises:
            AdapterError: the request asks for one: a server's adapters are its models.
        """
        self._require_possible(request)
        site = Site(self._endpoint.url, self._endpoint.model, self._endpoint.key)
        plain_key(site.key)
        telling = Telling(request.sampling.stop)
        failure: Exception | None = None
        async with self._desk.place(self, request.request_id, self._told(request, telling)) as relay:
            while failure is None and not telling.is_over:
                try:
                    told = await relay.take()
                except AbortedError:
                    yield telling.abort()
                    return
                except Exception as error:
                    failure = error
                else:
                    for chunk in telling.read(told):
                        yield chunk
        if failure is not None:
            for chunk in telling.broken():
                yield chunk
            raise sentence(failure, site, begun=telling.has_begun)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`. A server is not asked twice."""
        raise EngineError(
            f"{self._spec.name} runs on a server here, which tells probabilities only while it answers: if it told "
            "any, they came with the answer."
        )

    async def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._desk.end(request_id, AbortedError())

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        self._desk.end_all(closed(self._spec.name), self)

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`."""
        raise AdapterError(NO_ADAPTERS)

    def memory(self) -> tuple[DeviceUse, ...]:
        """See `Engine.memory`: it takes none of this machine."""
        return ()

    def _require_possible(self, request: GenerationRequest) -> None:
        if self._closed:
            raise closed(self._spec.name)
        if request.adapter is not None:
            raise AdapterError(NO_ADAPTERS)
        if not request.messages:
            raise PromptError("There is no message to answer: type a prompt.")

    async def _told(self, request: GenerationRequest, telling: Telling) -> AsyncGenerator[Accepted | Told, None]:
        question = await self._question(request, telling)
        async with aclosing(ask(question, self._learnt, self._patience)) as answer:
            async for told in answer:
                yield told

    async def _question(self, request: GenerationRequest, telling: Telling) -> Question:
        endpoint, longest = self._endpoint, request.sampling.max_new_tokens
        if endpoint.messages_only or self._learnt.form(endpoint.url, endpoint.model).way == "messages":
            return Question(request, endpoint, (), None, longest)
        encoder = await self._encoder()
        # In threads, for a long prompt takes seconds.
        prompt = await asyncio.to_thread(encoder.encode, request.messages, request.options, longest)
        text = await asyncio.to_thread(text_form, prompt, encoder.tokenizer)
        telling.prompt_tokens, telling.dropped_messages = len(prompt.token_ids), len(prompt.dropped)
        return Question(request, endpoint, prompt.token_ids, text, min(longest, prompt.room))

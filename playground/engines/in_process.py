"""What the engines in this process share: from a request, through the prompt encoder and a token loop, to chunks.

Asyncio on this side; the token loop's thread on the other. Admits requests, turns tokens into text, ends streams.
Knows no UI, of the loop only what `TokenLoop` says, of adapters what `Weights` says. Extended by `BatchedEngine` and
`ShardedEngine`.

Whoever makes an engine closes it: its thread is no daemon, so a process that forgets does not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from transformers import PreTrainedModel

from playground.adapters.facts import CheckedAdapter
from playground.engines.base import Engine
from playground.engines.decoding.device_memory import device_use, weight_bytes
from playground.engines.decoding.inbox import AbortedError, Inbox
from playground.engines.decoding.row_sampling import RowSampling
from playground.engines.scoring import Scorer
from playground.engines.text.answer import Answer
from playground.errors import AdapterError, ContextFullError, EngineBusyError, EngineClosedError, EngineError
from playground.prompting.encoder import PromptEncoder
from playground.prompting.prompt import EncodedPrompt
from playground.types import AdapterUse, DeviceUse, GenerationChunk, GenerationRequest, ScoredPiece, Usage


class TokenLoop(Protocol):
    """One model's generation thread, from construction to `stop`. Every method may be called from any thread."""

    capacity: int
    """Tokens that one request may have, prompt and answer together."""

    @property
    def accepts(self) -> bool:
        """False once it was stopped or an exception ended the thread."""
        ...

    def submit(self, inbox: Inbox, token_ids: Sequence[int], max_new_tokens: int, sampling: RowSampling) -> str:
        """Queue a request; its outputs, or its failure, go to the inbox. The ticket returned cancels it."""
        ...

    def cancel(self, ticket: str) -> None:
        """Forget the request, wherever it is: its place in the batch and its cache are free before the next step."""
        ...

    def revive(self) -> None:
        """Start the thread again after a failure; may block for seconds. Raises EngineError where it cannot."""
        ...

    def stop(self) -> None:
        """End the thread, answers and all, within a second unless a step of the model takes longer. May be repeated."""
        ...

    def kv_use(self) -> Mapping[str, tuple[int, int]]:
        """Bytes of KV cache by device name: those that hold contexts now, and those reserved. Cheap."""
        ...


class Weights(Protocol):
    """What an engine runs on: whose answers these are, and who else answers from the same."""

    adapter: AdapterUse | None
    """The adapter that is part of them."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes by device name, as far as no other engine tells of them. Cheap, from any thread."""
        ...

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`."""
        ...

    def copy(self) -> PreTrainedModel:
        """A tree over them that is the caller's alone, as their own is the engine's. Raises EngineError."""
        ...

    def leave(self) -> None:
        """The engine stops, and with it all that it attached; blocks until they have. May be repeated."""
        ...


class PlainWeights:
    """Of an engine that takes no adapters."""

    adapter: AdapterUse | None = None

    def __init__(self, model: PreTrainedModel) -> None:
        self._sizes = weight_bytes(model)

    def sizes(self) -> Mapping[str, int]:
        """See `Weights.sizes`."""
        return self._sizes

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Weights.attach`."""
        raise AdapterError("This engine takes no adapters: use the model without one.")

    def copy(self) -> PreTrainedModel:
        """See `Weights.copy`."""
        raise EngineError("This engine cannot tell how probable the tokens of an answer were.")

    def leave(self) -> None:
        """See `Weights.leave`."""


class InProcessEngine:
    """Honours every sampling parameter, so it never raises SamplingError.

    The same seed gives the same answer whatever else is in the batch, as far as the logits are the same: a batch of
    another shape may round them differently. In float32 that decides nothing but exact ties; in 16 bits two tokens
    can be so close that it does.

    Args:
        encoder: the model's prompt encoder.
        loop: the running generation thread of that model, which is the engine's alone until `close`.
        eos_ids: tokens that end an answer.
        places: requests at a time, those that wait included; more are refused with EngineBusyError.
        weights: the model's.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        loop: TokenLoop,
        eos_ids: Collection[int],
        places: int,
        weights: Weights,
    ) -> None:
        self.model_id = encoder.spec.id
        self._encoder = encoder
        self._loop = loop
        self._eos_ids = eos_ids
        self._weights = weights
        self._scorer = Scorer(encoder, eos_ids, weights.copy)
        self._admitted: dict[str, Inbox] = {}
        self._slots = list(range(places))
        self._closed = False

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`."""
        self._require_own(request.adapter)
        with self._place(request.request_id) as (inbox, slot):
            # In a thread, for a long prompt takes seconds. An end that comes meanwhile waits in the inbox.
            prompt = await asyncio.to_thread(self._encoded, request)
            max_new_tokens = min(request.sampling.max_new_tokens, self._room(prompt))
            answer = Answer(self._encoder.tokenizer, self._eos_ids, request.sampling.stop)
            if not self._loop.accepts:
                await asyncio.to_thread(self._loop.revive)
            sampling = RowSampling.of(request.sampling, slot)
            ticket = self._loop.submit(inbox, prompt.token_ids, max_new_tokens, sampling)
            told = 0
            try:
                while answer.finish_reason is None:
                    delta = await _next_delta(inbox, answer)
                    if delta or answer.finish_reason:
                        usage = Usage(len(prompt.token_ids), len(answer.token_ids), len(prompt.dropped))
                        fresh, told = tuple(answer.token_ids[told:]), len(answer.token_ids)
                        yield GenerationChunk(delta, answer.finish_reason, usage, inbox.timings, fresh)
            finally:
                self._loop.cancel(ticket)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`."""
        self._require_own(request.adapter)
        prompt = await asyncio.to_thread(self._encoded, request)
        return await self._scorer.score(prompt, token_ids)

    async def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        inbox = self._admitted.get(request_id)
        if inbox is not None:
            inbox.end(AbortedError())

    async def close(self) -> None:
        """See `Engine.close`. The thread has ended a second later, unless one step of the model takes longer."""
        self._end_answers()
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """As `close`, for threads without an event loop; blocks."""
        self._end_answers()
        self._scorer.stop()
        self._weights.leave()
        self._loop.stop()

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """See `Engine.attach`."""
        return self._weights.attach(adapter, scale, kv_tokens)

    @property
    def alive(self) -> bool:
        """See `Engine.alive`: it ends only when it is closed, for a thread that fails is started again."""
        return not self._closed

    def memory(self) -> tuple[DeviceUse, ...]:
        """See `Engine.memory`."""
        return device_use(self._weights.sizes(), self._loop.kv_use())

    def _require_own(self, asked: AdapterUse | None) -> None:
        """Whoever asks the wrong engine is told, for its answer would pass for another's."""
        own = self._weights.adapter
        if asked != own:
            raise EngineError(
                f"{self._encoder.spec.name} runs with {_described(own)} here, but {_described(asked)} was asked for: "
                "choose the adapter again."
            )

    def _encoded(self, request: GenerationRequest) -> EncodedPrompt:
        answer_tokens = request.sampling.max_new_tokens
        return self._encoder.encode(request.messages, request.options, answer_tokens, self._loop.capacity)

    def _end_answers(self) -> None:
        self._closed = True
        for inbox in list(self._admitted.values()):
            inbox.end(EngineClosedError(f"{self._encoder.spec.name} was stopped while it answered."))

    def _room(self, prompt: EncodedPrompt) -> int:
        """Tokens that the answer may have: what the context leaves, or the cache where that is smaller."""
        length = len(prompt.token_ids)
        most = min(prompt.context_length, self._loop.capacity)
        if length >= most:
            raise ContextFullError(
                f"The prompt has {length} tokens, and {self._encoder.spec.name} can take {most - 1} here, with room "
                f"for an answer: shorten it by {length + 1 - most}.",
                excess=length + 1 - most,
            )
        return most - length

    @contextmanager
    def _place(self, request_id: str) -> Iterator[tuple[Inbox, int]]:
        """An inbox and a sampling slot, for as long as the request lives."""
        name = self._encoder.spec.name
        if self._closed:
            raise EngineClosedError(f"{name} was stopped: choose the model again.")
        if request_id in self._admitted:
            raise EngineError(f"A request with the id {request_id} is being answered: wait for it, or use another id.")
        if not self._slots:
            raise EngineBusyError(f"{name} has too many requests waiting: try again in a moment.")
        slot = self._slots.pop()
        inbox = self._admitted[request_id] = Inbox()
        try:
            yield inbox, slot
        finally:
            del self._admitted[request_id]
            self._slots.append(slot)


def _described(adapter: AdapterUse | None) -> str:
    if adapter is None:
        return "no adapter"
    return f"the adapter {adapter.id} ({adapter.revision or 'no revision'}) at scale {adapter.scale:g}"


async def _next_delta(inbox: Inbox, answer: Answer) -> str:
    """Text of all tokens that came since the last call; empty where they make no whole cluster yet."""
    try:
        output = await inbox.take()
    except AbortedError:
        return answer.abort()
    return answer.read(output.tokens, finished=output.finished)


def end_tokens(model: PreTrainedModel, encoder: PromptEncoder) -> frozenset[int]:
    """Tokens that end an answer: those of generation_config.json, and the tokenizer's own, which templates write."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, encoder.tokenizer.eos_token_id] if i is not None and i >= 0)

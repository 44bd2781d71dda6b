"""What a server told, chunk by chunk, as the chunks of our answer: text, cost, time, probabilities, and why it ended.

Knows no connection and no error. One for each answer; called by `remote`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

from playground.engines.remoting.asking import Accepted
from playground.engines.remoting.scores import ScoredPieces
from playground.engines.remoting.texts import RemoteAnswer
from playground.engines.remoting.told import Told
from playground.types import FinishReason, GenerationChunk, ScoredPiece, SentAs, Timings, Usage


class Telling:
    """
    prompt_tokens: of the prompt as we wrote it, 0 where the server wrote its own; dropped_messages: see `Usage`.
    is_over: whether the last chunk was told.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.prompt_tokens = 0
        self.dropped_messages = 0
        self.is_over = False
        self._answer = RemoteAnswer(stop)
        self._scored = ScoredPieces()
        self._scores: tuple[ScoredPiece, ...] = ()
        self._fresh: tuple[int, ...] = ()
        self._reason: FinishReason | None = None
        self._sent_as: SentAs | None = None
        self._untold: SentAs | None = None
        self._told_usage: tuple[int, int] | None = None
        self._begun_at = self._asked_at = perf_counter()
        self._first_at: float | None = None
        self._last_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether a token came, be it one of its thoughts."""
        return self._first_at is not None

    def read(self, told: Accepted | Told | None) -> Iterator[GenerationChunk]:
        """What the server told, or None at the end, as the chunks that it makes."""
        if told is None:
            yield self._last(self._reason or "stop", self._answer.finish(self._reason or "stop"))
        elif isinstance(told, Accepted):
            self._sent_as = self._untold = told.sent_as
            self._asked_at = told.asked_at
        else:
            yield from self._read(told)

    def abort(self) -> GenerationChunk:
        """Someone ended the answer."""
        return self._last("abort", self._answer.finish("abort"))

    def broken(self) -> Iterator[GenerationChunk]:
        """The answer broke off: what was held back of it, without an end."""
        self._scores += self._scored.flush()
        if delta := self._answer.rest():
            yield self._chunk(delta)

    def _read(self, told: Told) -> Iterator[GenerationChunk]:
        if told.text or told.thought or told.tokens or told.token_ids:
            self._last_at = told.at
            self._first_at = told.at if self._first_at is None else self._first_at
        self._reason = told.finish_reason or self._reason
        self._told_usage = told.usage or self._told_usage
        self._fresh += told.token_ids
        self._scores += self._scored.push(told)
        delta = self._answer.read(told.text)
        if self._answer.finish_reason:
            yield self._last(self._answer.finish_reason, delta)
        elif delta:
            yield self._chunk(delta)

    def _last(self, reason: FinishReason, delta: str) -> GenerationChunk:
        self.is_over = True
        self._scores += self._scored.flush()
        return self._chunk(delta, reason)

    def _chunk(self, delta: str, reason: FinishReason | None = None) -> GenerationChunk:
        fresh, self._fresh = self._fresh, ()
        scores, self._scores = self._scores, ()
        sent_as, self._untold = self._untold, None
        return GenerationChunk(delta, reason, self._usage(), self._timings(), fresh, scores, sent_as)

    def _usage(self) -> Usage | None:
        """The server's count, but of a prompt that was sent as ids ours."""
        if self._told_usage is None:
            return None
        prompt, completion = self._told_usage
        own = self.prompt_tokens if self._sent_as == "token_ids" else prompt
        return Usage(own, completion, self.dropped_messages if self._sent_as != "messages" else 0)

    def _timings(self) -> Timings:
        """The time before the server took the request, in tries that it refused, was spent waiting."""
        queued = self._asked_at - self._begun_at
        if self._first_at is None:
            return Timings(queued, perf_counter() - self._asked_at, 0.0)
        return Timings(queued, self._first_at - self._asked_at, self._last_at - self._first_at)

"""What a panel knows: its turns, as frozen values with verbs that return a new one.

Only the conversation lives here, so whatever is in it can be sent to a model; cursors, spinners and load progress are
the view's. Knows no gradio, no engine and no model. Called by the handlers, kept in `gr.State`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from playground.types import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Message,
    ScoredPiece,
    SentAs,
    Timings,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and its answer. `request` is what the model was given; `error` is a sentence, empty if none;
    `token_ids` are the answer's, where the engine can tell. `scores` and `sent_as` are what a server told of it; the
    scores, some KB a token, are kept while the turn is the panel's last, for no other is shown with them.

    The turn is open, that is being answered, until it has a finish reason. Then it holds no server's key any more.
    """

    request: GenerationRequest
    answer: str = ""
    usage: Usage | None = None
    timings: Timings | None = None
    finish_reason: FinishReason | None = None
    error: str = ""
    token_ids: tuple[int, ...] = ()
    scores: tuple[ScoredPiece, ...] = ()
    sent_as: SentAs | None = None

    @property
    def prompt(self) -> str:
        return self.request.messages[-1].content

    @property
    def is_open(self) -> bool:
        return self.finish_reason is None

    def fold(self, chunk: GenerationChunk) -> Turn:
        return replace(
            self,
            answer=self.answer + chunk.delta,
            usage=chunk.usage or self.usage,
            timings=chunk.timings or self.timings,
            finish_reason=chunk.finish_reason,
            token_ids=self.token_ids + chunk.token_ids,
            scores=self.scores + chunk.scores,
            sent_as=chunk.sent_as or self.sent_as,
        )

    def without_key(self) -> Turn:
        endpoint = self.request.endpoint
        if endpoint is None or not endpoint.key.get_secret_value():
            return self
        return replace(self, request=self.request.model_copy(update={"endpoint": endpoint.without_key()}))


@dataclass(frozen=True, slots=True)
class PanelState:
    """The turns of one panel. `notice` says why its last prompt was not sent; it is no part of the conversation."""

    turns: tuple[Turn, ...] = ()
    notice: str = ""

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    @property
    def is_busy(self) -> bool:
        return self.last is not None and self.last.is_open

    def messages(self, system: str, prompt: str) -> tuple[Message, ...]:
        """The conversation so far with `prompt` at its end; turns without an answer are left out."""
        said = [Message(role="system", content=system)] if system else []
        for turn in self.turns:
            if turn.answer:
                said += [Message(role="user", content=turn.prompt), Message(role="assistant", content=turn.answer)]
        return (*said, Message(role="user", content=prompt))

    @property
    def unsent(self) -> frozenset[int]:
        """The turns, counted from 0, that the last prompt left out, as far as its engine has told."""
        for place in reversed(range(len(self.turns))):
            if usage := self.turns[place].usage:
                said = [index for index in range(place) if self.turns[index].answer]
                return frozenset(said[: (usage.dropped_messages + 1) // 2])
        return frozenset()

    def submit(self, request: GenerationRequest) -> PanelState:
        """Open a turn. One that an interrupted stream left open is closed as aborted first; none keeps its scores."""
        earlier = [replace(turn, scores=()) if turn.scores else turn for turn in self.stop().turns]
        return PanelState((*earlier, Turn(request)))

    def refuse(self, sentence: str) -> PanelState:
        """Say why a prompt was not sent; the history stays as it is."""
        return replace(self, notice=sentence)

    def fold(self, chunk: GenerationChunk) -> PanelState:
        return self._with_last(self.turns[-1].fold(chunk)) if self.is_busy else self

    def stop(self) -> PanelState:
        """Close an open turn as aborted, with what was said so far."""
        return self._with_last(replace(self.turns[-1], finish_reason="abort")) if self.is_busy else self

    def fail(self, sentence: str) -> PanelState:
        """Close an open turn with an error; what was said so far and the prompt stay."""
        if not self.is_busy:
            return self
        return self._with_last(replace(self.turns[-1], finish_reason="error", error=sentence))

    def clear(self) -> PanelState:
        return PanelState()

    def without_last(self) -> PanelState:
        """The conversation before its last turn, from which that turn's prompt can be asked again."""
        return PanelState(self.turns[:-1])

    def _with_last(self, turn: Turn) -> PanelState:
        return replace(self, turns=(*self.turns[:-1], turn if turn.is_open else turn.without_key()))

"""How much of a model's context a prompt takes, and which turns are left out where it is too much.

Knows messages and prompts, neither templates nor tokenizers. Called by the encoder; `budget` by the UI and the API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model_registry.spec import ModelSpec
from playground.errors import ContextFullError
from playground.prompting.prompt import Budget, EncodedPrompt, Span
from playground.types import Message

Write = Callable[[Sequence[int]], EncodedPrompt]
"""Makes the prompt of some of the messages, by their numbers."""


def require_room(spec: ModelSpec, prompt: EncodedPrompt) -> None:
    """Raise ContextFullError unless at least one token of an answer fits behind the prompt."""
    excess = 1 - prompt.room
    if excess > 0:
        tokens = "1 token" if excess == 1 else f"{excess:,} tokens"
        raise ContextFullError(
            f"This prompt is {tokens} too long for {spec.name}: it takes {len(prompt.token_ids):,} of "
            f"{prompt.context_length:,} tokens and leaves no room for an answer. Shorten it, or clear the history.",
            excess,
        )


def budget(prompt: EncodedPrompt, answer_tokens: int) -> Budget:
    """How the context is shared out, for an answer of at most `answer_tokens`."""
    shares = {"system": 0, "history": 0, "prompt": 0, "frame": 0}
    asked = max((span.message for span in prompt.spans if span.message is not None), default=None)
    system = {span.message for span in prompt.spans if span.origin == "system"}
    for span in prompt.spans:
        shares[_share(span, asked, system)] += span.end_token - span.first_token
    answer = max(0, min(answer_tokens, prompt.room))
    return Budget(prompt.context_length, **shares, room=prompt.room, answer=answer)


def _share(span: Span, asked: int | None, system: set[int | None]) -> str:
    if span.message is None:
        return "system" if span.origin == "default_system" else "frame"
    if span.message in system:
        return "system"
    return "prompt" if span.message == asked else "history"


def leave_out_oldest(
    write: Write, messages: Sequence[Message], sent: Sequence[int], holds: int, answer_tokens: int
) -> EncodedPrompt:
    """The prompt of `sent` without as many of its oldest turns as it takes to make room for the answer.

    A turn is a user's message with the answers behind it. The system prompt and the last turn stay. Where even without
    all others not one token of an answer fits, nothing is left out, for it would not help.

    Args:
        holds: tokens that prompt and answer may have.
        answer_tokens: the room to make; half of `holds` where that is less, so that a long answer costs no memory of
            what was said.
    """
    prompt = everything = write(sent)
    turns = _turns(messages, sent)[:-1]
    most_tokens = holds - min(answer_tokens, max(1, holds // 2))
    if len(prompt.token_ids) <= most_tokens or not turns:
        return prompt

    def without(count: int) -> EncodedPrompt:
        left_out = {number for turn in turns[:count] for number in turn}
        return write([number for number in sent if number not in left_out])

    count = _estimate(prompt, turns, most_tokens)
    prompt = without(count)
    while len(prompt.token_ids) > most_tokens and count < len(turns):
        count += 1
        prompt = without(count)
    while count > 1 and len((longer := without(count - 1)).token_ids) <= most_tokens:
        count -= 1
        prompt = longer
    return prompt if len(prompt.token_ids) < holds else everything


def _turns(messages: Sequence[Message], sent: Sequence[int]) -> list[list[int]]:
    turns: list[list[int]] = []
    for number in sent:
        role = messages[number].role
        if role == "user" or (role == "assistant" and not turns):
            turns.append([number])
        elif role == "assistant":
            turns[-1].append(number)
    return turns


def _estimate(prompt: EncodedPrompt, turns: Sequence[Sequence[int]], most_tokens: int) -> int:
    """How many turns to leave out, by the tokens from one turn's begin to the next one's; at least one."""
    first = {span.message: span.first_token for span in reversed(prompt.spans)}
    begin = first.get(turns[0][0], 0)
    excess = len(prompt.token_ids) - most_tokens
    for count, following in enumerate(turns[1:], 1):
        if first.get(following[0], begin) - begin >= excess:
            return count
    return len(turns)

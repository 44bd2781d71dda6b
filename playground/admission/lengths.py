"""How long texts, answers and conversations may be. Checked where they arrive, for no browser has to keep to a field.

Knows neither visitors nor components. Called by the handlers of the page and by the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from playground.errors import PromptError, SamplingError
from playground.limits import Limits
from playground.types import Message

LONGEST_IN_ALL = 4
"""How many of the longest texts a whole conversation may be: what it costs to lay one out grows with all of it."""


def too_long(texts: Mapping[str, str], limits: Limits) -> str:
    """A sentence about the first of `texts`, by what they are called, that is too long; "" if none is."""
    most = limits.prompt_characters
    for name, text in texts.items():
        if most is not None and len(text) > most:
            return f"{name}: {len(text):,} characters, and at most {most:,} may be sent here. Shorten it."
    return ""


def check_texts(texts: Mapping[str, str], limits: Limits) -> None:
    """Raises PromptError: what `too_long` says."""
    if sentence := too_long(texts, limits):
        raise PromptError(sentence)


def check_answer(tokens: int, limits: Limits) -> None:
    """The longest answer that is asked for. Raises SamplingError."""
    most = limits.answer_tokens
    if most is not None and tokens > most:
        raise SamplingError(f"Longest answer: at most {most:,} tokens may be asked for here, not {tokens:,}.")


def check_turns(turns: int, limits: Limits) -> None:
    """The turns of a conversation, with the one that is to come. Raises PromptError."""
    if limits.turns is not None and turns > limits.turns:
        raise PromptError(f"This conversation has {limits.turns} prompts, and may not go on here: Clear begins anew.")


def too_long_in_all(messages: Sequence[Message], limits: Limits) -> str:
    """A sentence about a conversation, as a model would get it, that is too long; "" if it is not."""
    if limits.prompt_characters is None:
        return ""
    most, length = LONGEST_IN_ALL * limits.prompt_characters, sum(len(message.content) for message in messages)
    if length <= most:
        return ""
    return (
        f"This conversation would have {length:,} characters in all, and at most {most:,} may be sent here: "
        "Clear begins a new one."
    )


def check_conversation(messages: Sequence[Message], limits: Limits) -> None:
    """Raises PromptError: what `too_long_in_all` says."""
    if sentence := too_long_in_all(messages, limits):
        raise PromptError(sentence)


def check_messages(messages: Sequence[Message], limits: Limits) -> None:
    """A whole conversation, as programs send it. Raises PromptError."""
    check_turns(sum(message.role == "user" for message in messages), limits)
    if limits.turns is not None and len(messages) > 2 * limits.turns + 1:
        raise PromptError(f"messages: {len(messages):,}, and at most {2 * limits.turns + 1:,} may be sent here.")
    check_texts({f"messages.{place}.content": message.content for place, message in enumerate(messages)}, limits)
    check_conversation(messages, limits)

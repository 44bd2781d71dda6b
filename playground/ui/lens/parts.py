"""What the parts of a prompt are called, in the page's words: one name and one letter for each hand that wrote some.

Pure functions over a prompt and the messages that it was made from. Knows no HTML and no gradio. Called by the views of
the lens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from playground.prompting.prompt import EncodedPrompt, Origin, Span, SystemPrompt, WhyUnsent
from playground.types import Message, PromptOptions, SentAs

Stage = Literal["typing", "answering", "answered"]
"""Whether the last message is being typed, is being answered, or was."""

Look = Literal["t", "c", "k", "s", "u", "a", "w"]
"""The class of a part: template, control token, added by the tokenizer, system prompt, user, assistant, and what is
asked now. Letters, for a page may hold thousands of them."""

LOOKS: dict[Origin, Look] = {
    "template": "t",
    "control": "c",
    "tokenizer": "k",
    "default_system": "s",
    "system": "s",
    "user": "u",
    "assistant": "a",
}
NAMES: dict[Look, str] = {
    "s": "system prompt",
    "u": "user",
    "a": "assistant",
    "w": "the prompt",
    "t": "template",
    "c": "control token",
    "k": "added by the tokenizer",
}
SYSTEMS: dict[SystemPrompt, str] = {
    "none": "",
    "default": "the trained default",
    "own": "yours",
    "changed": "yours, not the trained one",
    "missing": "",
}
NOW: dict[Stage, str] = {"typing": "being typed", "answering": "being answered", "answered": "user"}
WHY: dict[WhyUnsent, str] = {"format": "not sent, no place in the format", "dropped": "left out, the context is full"}


@dataclass(frozen=True)
class Seen:
    """A prompt and what it was made from; `model` is a name.

    going: the sentence that says how a server gets it, "" where none does; `is_exact` is false where that one makes a
        prompt of its own.
    """

    model: str
    messages: Sequence[Message]
    options: PromptOptions
    prompt: EncodedPrompt
    stage: Stage
    going: str = ""
    is_exact: bool = True

    @property
    def last(self) -> int:
        """The number of the message that is asked now."""
        return len(self.messages) - 1

    @cached_property
    def turns(self) -> list[int]:
        """The turn of each message, counted from 1; 0 for a system prompt before all of them."""
        numbers, turn = [], 0
        for message in self.messages:
            turn += message.role == "user"
            numbers.append(turn)
        return numbers

    def look(self, span: Span) -> Look:
        return "w" if span.origin == "user" and span.message == self.last else LOOKS[span.origin]

    def label(self, index: int) -> str:
        """Of a message, such as "Turn 2 · assistant"."""
        role = self.messages[index].role
        if role == "system":
            return " · ".join(filter(None, ("System prompt", SYSTEMS[self.prompt.system])))
        return f"Turn {self.turns[index]} · {NOW[self.stage] if index == self.last else role}"

    def span_label(self, span: Span) -> str:
        """Of a part that a message or the template's own system prompt wrote; "" for the rest."""
        if span.origin == "default_system":
            return "System prompt · the trained default"
        return "" if span.message is None else self.label(span.message)

    @property
    def left_out(self) -> list[int]:
        """The turns that the context has no room for."""
        return sorted({self.turns[index] for index in self.prompt.dropped})


def going_words(address: str, sent_as: SentAs | None, stage: Stage) -> str:
    """How a server gets the prompt, or got it; `sent_as` is None until that is known."""
    goes = "Goes" if stage == "typing" else "Went"
    match sent_as:
        case "token_ids":
            return f"{goes} to {address} as these token ids."
        case "text":
            return f"{goes} to {address} as this text."
        case "messages":
            return f"{address} gets messages; what its template makes of them cannot be seen from here."
        case None:
            return f"{goes} to {address}: as these token ids where it takes them, else as text or as messages."


def turns_in_words(turns: Sequence[int]) -> str:
    """Such as "turn 1", "turns 1 and 2", "turns 1 to 3". `turns` in order, at least one."""
    if len(turns) == 1:
        return f"turn {turns[0]}"
    if turns[-1] - turns[0] == len(turns) - 1 and len(turns) > 2:
        return f"turns {turns[0]} to {turns[-1]}"
    return f"turns {', '.join(map(str, turns[:-1]))} and {turns[-1]}"

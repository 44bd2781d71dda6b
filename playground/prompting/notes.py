"""Sentences about what became of a conversation in a prompt, and the facts that they state. Called by the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_registry.spec import ModelSpec
from playground.prompting.origins import Rendered
from playground.prompting.prompt import Span, SystemPrompt, Unsent
from playground.types import Message

UNKNOWN_ORIGINS = (
    "This template changes what messages say, so that its own words and theirs cannot be told apart: all of it counts "
    "as the template's."
)


def system_prompt(
    spec: ModelSpec, sent: Mapping[int, Message], spans: Sequence[Span], rendered: Rendered
) -> SystemPrompt:
    """Where the system prompt of a prompt comes from, and whether it is the trained one; `sent`: by number."""
    trained = spec.prompt.default_system.strip()
    given = _given(sent, spans) if rendered.known else _found(sent, rendered.text)
    if given:
        return "default" if given == trained else "changed" if trained else "own"
    if any(span.origin == "default_system" for span in spans):
        return "default"
    return "missing" if trained else "none"


def _given(sent: Mapping[int, Message], spans: Sequence[Span]) -> str:
    numbers = {span.message for span in spans if span.origin == "system"}
    return "".join(message.content for number, message in sent.items() if number in numbers).strip()


def _found(sent: Mapping[int, Message], text: str) -> str:
    """Where the origins are unknown: what the system said, if it can be read in the text."""
    said = [message.content.strip() for message in sent.values() if message.role == "system"]
    return "".join(each for each in said if each in text)


def about_system_prompt(spec: ModelSpec, system: SystemPrompt) -> tuple[str, ...]:
    if system == "changed":
        return (f"{spec.name} was trained with a system prompt, and this is another: its answers may be worse.",)
    if system == "missing":
        return (f"{spec.name} was trained with a system prompt, and there is none: its answers may be worse.",)
    return ()


def about_format(spec: ModelSpec, unsent: Sequence[Unsent], *, own: bool) -> tuple[str, ...]:
    """What the format does to a conversation that it has no full place for; `own`: not with a user's template."""
    if own and spec.kind == "base":
        return (f"{spec.name} has no chat format: it continues the text of the messages, joined.",)
    if not any(each.why == "format" for each in unsent):
        return ()
    if own and not spec.prompt.multi_turn:
        return (f"{spec.name} knows single turns only: the earlier messages are not sent.",)
    return ("The template leaves out messages: the model does not see them.",)


def about_dropped(unsent: Sequence[Unsent]) -> tuple[str, ...]:
    dropped = sum(each.why == "dropped" for each in unsent)
    if not dropped:
        return ()
    what = "the oldest message is" if dropped == 1 else f"the {dropped} oldest messages are"
    return (f"There is no room for the answer asked for: {what} left out.",)

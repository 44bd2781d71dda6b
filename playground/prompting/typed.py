"""Control tokens that messages spell out, such as "</s>" in a question about HTML: found, and sent as plain text.

Whoever writes into a conversation cannot end a turn so, nor begin one in another's name. Called by the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from playground.errors import TemplateError
from playground.prompting.control import Encoded, TextEncoder
from playground.prompting.origins import Rendered
from playground.prompting.prompt import ControlInText
from playground.prompting.spans import written_by
from playground.types import Message

BLANK = "\U0010fffd"
"""A letter without meaning."""

Render = Callable[[Sequence[Message]], str]


class UnguardedError(Exception):
    """`token` cannot be sent as plain text; `reason` completes the sentence."""

    def __init__(self, token: str, reason: str) -> None:
        super().__init__(token, reason)
        self.token = token
        self.reason = reason


def spelled_out(
    rendered: Rendered, encoded: Encoded, messages: Mapping[int, Message], control: Mapping[int, str]
) -> tuple[ControlInText, ...]:
    """What messages, by their numbers, spelled out, in their order: control tokens unless it is prevented."""
    if rendered.known:
        pairs = written_by(rendered.parts, encoded.controls.values())
        found = {
            ControlInText(part.message, part.offset + max(0, each.start - part.start), control[each.token_id])
            for each, part in pairs
            if part is not None and part.message is not None
        }
    else:
        spelling = _any_of(control[each.token_id] for each in encoded.controls.values())
        found = {
            ControlInText(number, match.start(), match[0])
            for number, message in messages.items()
            for match in spelling.finditer(message.content)
        }
    return tuple(sorted(found, key=lambda each: (each.message, each.start)))


def as_plain_text(
    texts: TextEncoder,
    rendered: Rendered,
    encoded: Encoded,
    messages: Mapping[int, Message],
    typed: Sequence[ControlInText],
    render: Render,
) -> Encoded:
    """The rendered text as tokens, with no control token but those that the template wrote.

    Args:
        encoded: the same text with whatever control tokens it spells.
        messages: those that were rendered, by number.
        typed: what they spelled out.
        render: the template.

    Raises UnguardedError where the template's own and the messages' cannot be told apart.
    """
    written = [each for each, part in written_by(rendered.parts, encoded.controls.values()) if part is None]
    said = "\0".join(message.content for message in messages.values())
    doubtful = {texts.control[token_id] for token_id in {each.token_id for each in written}}
    doubtful = {spelling for spelling in doubtful if spelling in said}
    if not typed and not doubtful:
        return encoded
    token = typed[0].token if typed else min(doubtful)
    if not rendered.known:
        raise UnguardedError(token, "the template changes what messages say")
    try:
        harmless = texts.encode(render(_without(messages, typed, doubtful)))
        if [each.token_id for each in harmless.controls.values()] != [each.token_id for each in written]:
            raise UnguardedError(token, "the template makes it its own")
        return texts.encode_guarded(rendered.text, written) if typed else encoded
    except (TemplateError, ValueError) as error:
        raise UnguardedError(token, str(error)) from error


def _without(
    messages: Mapping[int, Message], typed: Sequence[ControlInText], spellings: Iterable[str]
) -> list[Message]:
    """The messages with blanks for all that spells a control token."""
    contents = {number: list(message.content) for number, message in messages.items()}
    for each in typed:
        place = slice(each.start, each.start + len(each.token))
        contents[each.message][place] = BLANK * len(contents[each.message][place])
    pattern = _any_of(spellings)
    return [
        message.model_copy(update={"content": pattern.sub(BLANK, "".join(contents[number]))})
        for number, message in messages.items()
    ]


def _any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(set(spellings), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

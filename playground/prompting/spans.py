"""The spans of a prompt: the parts of its text and its tokens, laid over each other.

Knows neither template nor tokenizer, only what was found out with them. Called by the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from playground.prompting.control import Control, Encoded
from playground.prompting.origins import Part
from playground.prompting.prompt import Span
from playground.types import Message


def written_by(parts: Sequence[Part], controls: Iterable[Control]) -> Iterator[tuple[Control, Part | None]]:
    """Each control token with the first message's part that it touches; both in the order of the text."""
    contents = [part for part in parts if part.message is not None]
    at = 0
    for control in controls:
        while at < len(contents) and contents[at].end <= control.start:
            at += 1
        touched = at < len(contents) and contents[at].start < control.end
        yield control, contents[at] if touched else None


def make_spans(
    text: str, parts: Sequence[Part], messages: Sequence[Message], default_system: str, encoded: Encoded
) -> tuple[Span, ...]:
    """Spans that cover text and tokens once, in order.

    Args:
        parts: of the text; their messages count from 0 in `messages`.
        default_system: a system prompt to look for in what the template wrote; "" for none.
    """
    whole = [span for part in parts for span in _by_origin(text, part, messages, default_system)]
    cut = list(_with_controls(whole, written_by(parts, encoded.controls.values())))
    return tuple(_with_tokens(cut, encoded, text))


def _by_origin(text: str, part: Part, messages: Sequence[Message], default_system: str) -> Iterator[Span]:
    if part.message is not None:
        yield Span(part.start, part.end, 0, 0, messages[part.message].role, part.message)
        return
    place = text.find(default_system, part.start, part.end) if default_system else -1
    if place < 0:
        yield Span(part.start, part.end, 0, 0, "template")
        return
    end = place + len(default_system)
    edges = [(part.start, place, "template"), (place, end, "default_system"), (end, part.end, "template")]
    yield from (Span(start, end, 0, 0, origin) for start, end, origin in edges if end > start)  # type: ignore[arg-type]


def _with_controls(spans: Iterable[Span], controls: Iterator[tuple[Control, Part | None]]) -> Iterator[Span]:
    """The spans with control tokens cut out of them, as spans of their own."""
    place = 0
    control, part = next(controls, (None, None))
    for span in spans:
        place = max(place, span.start)
        while control and control.start < span.end:
            if control.start > place:
                yield replace(span, start=place, end=control.start)
            yield Span(control.start, control.end, 0, 0, "control", part.message if part else None)
            place = control.end
            control, part = next(controls, (None, None))
        if place < span.end:
            yield replace(span, start=place)


def _with_tokens(spans: Sequence[Span], encoded: Encoded, text: str) -> Iterator[Span]:
    """The spans with their tokens, between those that the tokenizer added in front and behind."""
    count = len(encoded.ids)
    begins = encoded.begins(text)
    first = next((number for number in range(count) if not encoded.added[number]), count) if spans else count
    last = next((number for number in range(count, first, -1) if not encoded.added[number - 1]), first)
    if first:
        yield Span(0, 0, 0, first, "tokenizer")
    token = first
    for number, span in enumerate(spans, 1):
        start = token
        while token < last and (begins[token] < span.end or number == len(spans)):
            token += 1
        yield replace(span, first_token=start, end_token=token)
    if last < count:
        yield Span(len(text), len(text), last, count, "tokenizer")

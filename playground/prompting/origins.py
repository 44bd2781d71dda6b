"""Whose words the parts of a rendered prompt are: found by rendering once more with marks around each message's words.

A template is a program, so nothing but running it tells what it does with a message. Marks are private-use characters
that occur nowhere else; what it writes between a pair is the message's. Where the marks change more than themselves,
or the words between them are not the message's, the origins are unknown, and that is said. Called by the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice, pairwise
from operator import attrgetter

from playground.errors import TemplateError
from playground.types import Message

Render = Callable[[Sequence[Message]], str]

PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a rendered text: the template's, or what a message's content has from place `offset` on."""

    start: int
    end: int
    message: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered text, and the parts that cover it in order; where the origins are not `known`, one for all of it."""

    text: str
    parts: tuple[Part, ...]
    known: bool

    def numbered(self, numbers: Sequence[int]) -> Rendered:
        """With other numbers for the messages, which counted from 0."""
        parts = (part if part.message is None else replace(part, message=numbers[part.message]) for part in self.parts)
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True, slots=True)
class _Marked:
    """A message, and the words of it, `start` to `end`, that stand between its pair of marks."""

    message: Message
    start: int
    end: int
    pair: str

    @property
    def words(self) -> str:
        return self.message.content[self.start : self.end]

    @property
    def before(self) -> str:
        return self.message.content[: self.start]

    @property
    def behind(self) -> str:
        return self.message.content[self.end :]

    def written(self, *, trimmed: bool) -> Message:
        before = self.before.lstrip() if trimmed else self.before
        behind = self.behind.rstrip() if trimmed else self.behind
        content = f"{before}{self.pair[0]}{self.words}{self.pair[1]}{behind}"
        return self.message.model_copy(update={"content": content})


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mark that came out: its place in the text without marks, its message, and whether it opens a pair."""

    place: int
    message: int
    opens: bool


@dataclass(frozen=True, slots=True)
class _Marking:
    """What the template made of the messages with marks."""

    text: str
    found: tuple[_Mark, ...]

    @property
    def order(self) -> list[tuple[int, bool]]:
        return [(mark.message, mark.opens) for mark in self.found]

    def gaps(self) -> Iterator[tuple[_Mark | None, _Mark | None, str]]:
        """The text between neighbouring marks, and before the first and behind the last, with these marks."""
        for left, right in pairwise((None, *self.found, None)):
            yield left, right, self.text[left.place if left else 0 : right.place if right else None]


_Marks = Mapping[int, _Marked]


def trace(render: Render, messages: Sequence[Message], template: str) -> Rendered:
    """The messages rendered, with the origins of each part; `template` is the text of what `render` renders.

    Renders twice, and up to eight times where it must. Raises what `render` raises for the messages as they are.
    """
    text = render(messages)
    for marks in _markings(_mark(messages, template + text)):
        parts = _parts(render, messages, text, marks)
        if parts is not None:
            return Rendered(text, tuple(_cover(parts, len(text))), True)
    return Rendered(text, (Part(0, len(text)),) if text else (), False)


def _markings(marks: _Marks) -> Iterator[_Marks]:
    """Where to try marks, until a template is not disturbed: around words; where there are any; around all."""
    yield marks
    if any(not each.words for each in marks.values()):
        yield {index: each for index, each in marks.items() if each.words}
    if any(each.before or each.behind for each in marks.values()):
        yield {index: replace(each, start=0, end=len(each.message.content)) for index, each in marks.items()}


def _mark(messages: Sequence[Message], taken: str) -> dict[int, _Marked]:
    """Marks around the words of each message: its content without outer white space, which many templates trim."""
    used = set(taken).union(*(message.content for message in messages))
    free = (letter for letter in map(chr, chain(*PRIVATE_USE)) if letter not in used)
    marks = {}
    for index, message in enumerate(messages):
        pair, content = "".join(islice(free, 2)), message.content
        if content and len(pair) == 2:
            words = content.strip()
            start = content.index(words)
            marks[index] = _Marked(message, start, start + len(words), pair)
    return marks


def _parts(render: Render, messages: Sequence[Message], text: str, marks: _Marks) -> list[Part] | None:
    """The messages' parts of the text; None where they cannot be told."""
    marking = _render_marked(render, messages, marks)
    if marking is None or marking.text != text:
        return None
    words = _words(marking, marks)
    if len({message for message, _ in words}) < len(
        {(message, part.offset, part.end - part.start) for message, part in words}
    ):
        return None  # written more than once, and not alike
    if closer := _closer(words, marks):
        marks = {**marks, **closer}
        marking = _render_marked(render, messages, marks)
        if marking is None or marking.text != text:
            return None
        words = _words(marking, marks)
    if any(text[part.start : part.end] != marks[message].words for message, part in words):
        return None
    return [*(part for _, part in words), *_outer_space(render, messages, marking, marks)]


def _render_marked(
    render: Render, messages: Sequence[Message], marks: _Marks, *, trimmed: bool = False
) -> _Marking | None:
    written = list(messages)
    for index, each in marks.items():
        written[index] = each.written(trimmed=trimmed)
    try:
        text = render(written)
    except TemplateError:
        return None
    owners = {mark: (index, mark == each.pair[0]) for index, each in marks.items() for mark in each.pair}
    pieces = re.split(f"([{''.join(owners)}])", text) if owners else [text]
    places = accumulate(map(len, pieces[::2]))
    found = (_Mark(place, *owners[mark]) for place, mark in zip(places, pieces[1::2], strict=False))
    return _Marking("".join(pieces[::2]), tuple(found))


def _words(marking: _Marking, marks: _Marks) -> list[tuple[int, Part]]:
    """What stands within marks, with its message, in order.

    A template that cuts a content drops one mark of the pair: there the text is the message's as far as it matches.
    """
    words = []
    for left, right, text in marking.gaps():
        is_pair = (
            left is not None
            and right is not None
            and (left.message, left.opens, right.opens) == (right.message, True, False)
        )
        if left is not None and left.opens:
            each = marks[left.message]
            size = len(text) if is_pair else _same(each.words, text)
            words.append((left.message, Part(left.place, left.place + size, left.message, each.start)))
        if right is not None and not right.opens and not is_pair:
            each = marks[right.message]
            size = _same(each.words[::-1], text[::-1])
            words.append((right.message, Part(right.place - size, right.place, right.message, each.end - size)))
    return words


def _same(one: str, other: str) -> int:
    """How many characters both begin with."""
    if other.startswith(one):
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _closer(words: Iterable[tuple[int, Part]], marks: _Marks) -> dict[int, _Marked]:
    """Marks around what came out of the messages that were cut, less the white space at the cut: it may be trimmed."""
    closer = {}
    for message, part in words:
        each = marks[message]
        start, end = part.offset, part.offset + part.end - part.start
        came = each.message.content[start:end]
        if start > each.start:
            closer[message] = replace(each, start=end - len(came.lstrip()), end=end)
        elif end < each.end:
            closer[message] = replace(each, end=start + len(came.rstrip()))
    return closer


def _outer_space(render: Render, messages: Sequence[Message], marking: _Marking, marks: _Marks) -> Iterator[Part]:
    """The outer white space of messages that the template kept: what is missing when they are rendered without."""
    if not any(each.before.isspace() or each.behind.isspace() for each in marks.values()):
        return
    bare = _render_marked(render, messages, marks, trimmed=True)
    if bare is None or bare.order != marking.order:
        return
    for (left, right, text), (_, _, bare_text) in zip(marking.gaps(), bare.gaps(), strict=True):
        behind = marks[left.message].behind if left and not left.opens else ""
        before = marks[right.message].before if right and right.opens else ""
        first, last = _kept(text, bare_text, behind if behind.isspace() else "", before if before.isspace() else "")
        if left and first:
            yield Part(left.place, left.place + first, left.message, marks[left.message].end)
        if right and last:
            yield Part(right.place - last, right.place, right.message, marks[right.message].start - last)


def _kept(text: str, bare: str, behind: str, before: str) -> tuple[int, int]:
    """How much of `behind` a text begins with, and how much of `before` it ends with, where `bare` is all else."""
    size = len(text) - len(bare)
    for first in range(min(size, len(behind)), max(0, size - len(before)) - 1, -1):
        if text == behind[:first] + bare + before[len(before) - size + first :]:
            return first, size - first
    return 0, 0


def _cover(parts: Iterable[Part], length: int) -> Iterator[Part]:
    """The parts in order, with the template's between them."""
    place = 0
    for part in _joined(parts):
        if part.start > place:
            yield Part(place, part.start)
        yield part
        place = part.end
    if length > place:
        yield Part(place, length)


def _joined(parts: Iterable[Part]) -> list[Part]:
    """In order, without empty ones; words and the white space around them are one part."""
    joined: list[Part] = []
    for part in sorted(parts, key=attrgetter("start")):
        last = joined[-1] if joined else None
        goes_on = last and (last.end, last.message, last.offset - last.start) == (
            part.start,
            part.message,
            part.offset - part.start,
        )
        if last and goes_on:
            joined[-1] = replace(last, end=part.end)
        elif part.end > part.start:
            joined.append(part)
    return joined

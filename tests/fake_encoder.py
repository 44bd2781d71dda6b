"""A stand-in for a model's encoder: simple enough to be read at a glance, with every part that a real one has.

A prompt is a line "<|role|>text" for each message, then "<|assistant|>". A token is a character, but: a control token
is one, and a character beyond U+FFFF is its four bytes. A user's template stands before all that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import sha256

from model_registry.spec import ModelSpec
from playground.errors import ContextFullError, PromptError, TemplateError
from playground.prompting.prompt import (
    ControlInText,
    EncodedPrompt,
    Origin,
    Piece,
    Span,
    SystemPrompt,
    TemplateUsed,
    TokenCounts,
    TokenizedText,
    Unsent,
)
from playground.types import Message, PromptOptions

CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "</s>")
FIRST_BYTE = 0x110000
FIRST_CONTROL = FIRST_BYTE + 256
TEMPLATE = "{{ a template }}"
BROKEN_TEMPLATE = "{% broken"
_CONTROL = re.compile("|".join(re.escape(token) for token in CONTROL))


class FakeEncoder:
    """A system message must come first."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.template = TemplateUsed("card", TEMPLATE, sha256(TEMPLATE.encode()).hexdigest())

    def preview(
        self,
        messages: Sequence[Message],
        options: PromptOptions = PromptOptions(),  # noqa: B008
        answer_tokens: int = 1,
        most: int | None = None,
    ) -> EncodedPrompt:
        if not messages:
            raise PromptError("There is no message to answer: type a prompt.")
        if any(message.role == "system" for message in messages[1:]):
            raise TemplateError("A system message must come first.")
        if options.template == BROKEN_TEMPLATE:
            raise TemplateError("Your template is broken at line 1.")
        context = min(self.spec.context_length, most or self.spec.context_length)
        dropped: list[int] = []
        prompt = _Writing(options).write(messages, dropped)
        while options.when_full == "drop_oldest" and len(prompt.ids) + min(answer_tokens, context // 2) > context:
            if not (turn := _oldest_turn(messages, dropped)):
                break
            dropped += turn
            prompt = _Writing(options).write(messages, dropped)
        used = self.template
        if options.template is not None:
            used = TemplateUsed("user", options.template, sha256(options.template.encode()).hexdigest())
        return EncodedPrompt(
            "".join(prompt.text),
            tuple(prompt.ids),
            tuple(prompt.offsets),
            tuple(prompt.spans),
            used,
            context,
            system=self._system(messages),
            unsent=tuple(Unsent(index, "dropped") for index in dropped),
            control_in_text=tuple(
                ControlInText(index, found.start(), found[0])
                for index, message in enumerate(messages)
                if index not in dropped
                for found in _CONTROL.finditer(message.content)
            ),
            notes=("A note & <b>more</b>.",),
        )

    def encode(
        self,
        messages: Sequence[Message],
        options: PromptOptions = PromptOptions(),  # noqa: B008
        answer_tokens: int = 1,
        most: int | None = None,
    ) -> EncodedPrompt:
        prompt = self.preview(messages, options, answer_tokens, most)
        if prompt.room < 1:
            excess = 1 - prompt.room
            raise ContextFullError(f"This prompt is {excess} tokens too long for {self.spec.name}.", excess)
        return prompt

    def pieces(self, prompt: EncodedPrompt) -> tuple[Piece, ...]:
        return _pieces(prompt.text, prompt.token_ids, prompt.offsets)

    def tokenize(self, text: str) -> TokenizedText:
        writing = _Writing(PromptOptions())
        writing.part(text, "user", 0)
        pieces = _pieces(text, writing.ids, writing.offsets)
        counts = _counts(writing.ids, pieces)
        parts = frozenset(token for token in writing.ids if FIRST_BYTE <= token < FIRST_CONTROL)
        return TokenizedText(text, tuple(writing.ids), self.names(writing.ids), pieces, counts, parts)

    def counts(self, prompt: EncodedPrompt, message: int | None = None) -> TokenCounts:
        pieces = self.pieces(prompt)
        if message is None:
            return _counts(prompt.token_ids, pieces)
        ranges = [range(span.first_token, span.end_token) for span in prompt.spans if span.message == message]
        ids = [prompt.token_ids[number] for numbers in ranges for number in numbers]
        return _counts(ids, [piece for piece in pieces if any(piece.first_token in numbers for numbers in ranges)])

    def names(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(_name(token) for token in token_ids)

    def _system(self, messages: Sequence[Message]) -> SystemPrompt:
        own = self.spec.prompt.default_system
        if messages[0].role != "system":
            return "missing" if own else "none"
        if not own:
            return "own"
        return "default" if messages[0].content == own else "changed"


class _Writing:
    def __init__(self, options: PromptOptions) -> None:
        self.text: list[str] = []
        self.ids: list[int] = []
        self.offsets: list[tuple[int, int]] = []
        self.spans: list[Span] = []
        self.options = options

    def write(self, messages: Sequence[Message], dropped: Sequence[int]) -> _Writing:
        self.part(self.options.template or "", "template")
        for index, message in enumerate(messages):
            if index not in dropped:
                self.part(f"<|{message.role}|>", "control")
                self.content(message, index)
                self.part("\n", "template")
        self.part("<|assistant|>", "control")
        return self

    def content(self, message: Message, index: int) -> None:
        """Control tokens that it spells out are some, where they are sent as typed."""
        done = 0
        for found in _CONTROL.finditer(message.content) if self.options.control == "as_typed" else ():
            self.part(message.content[done : found.start()], message.role, index)
            self.part(found[0], "control", index)
            done = found.end()
        self.part(message.content[done:], message.role, index)

    def part(self, text: str, origin: Origin, message: int | None = None) -> None:
        if not text:
            return
        first, start = len(self.ids), sum(map(len, self.text))
        units = [text] if origin == "control" else [*text]
        place = start
        for unit in units:
            ids = _ids(unit)
            self.ids += ids
            self.offsets += [(place, place + len(unit))] * len(ids)
            place += len(unit)
        self.text.append(text)
        self.spans.append(Span(start, place, first, len(self.ids), origin, message))


def _ids(unit: str) -> list[int]:
    if unit in CONTROL:
        return [FIRST_CONTROL + CONTROL.index(unit)]
    return [ord(unit)] if ord(unit) <= 0xFFFF else [FIRST_BYTE + byte for byte in unit.encode()]


def _name(token: int) -> str:
    if token >= FIRST_CONTROL:
        return CONTROL[token - FIRST_CONTROL]
    return f"<0x{token - FIRST_BYTE:02X}>" if token >= FIRST_BYTE else chr(token)


def _pieces(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """A character with the marks behind it."""
    pieces: list[Piece] = []
    for place, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
        kind = "control" if token >= FIRST_CONTROL else "bytes" if token >= FIRST_BYTE else "text"
        if pieces and (start < pieces[-1].end or unicodedata.category(text[start]).startswith("M")):
            last = pieces.pop()
            pieces.append(Piece(last.start, end, last.first_token, place + 1, last.kind))
        else:
            pieces.append(Piece(start, end, place, place + 1, kind))  # type: ignore[arg-type]
    return tuple(pieces)


def _counts(ids: Sequence[int], pieces: Sequence[Piece]) -> TokenCounts:
    characters = sum(piece.end - piece.start if piece.kind == "control" else 1 for piece in pieces)
    return TokenCounts(len(ids), characters, sum(FIRST_BYTE <= token < FIRST_CONTROL for token in ids))


def _oldest_turn(messages: Sequence[Message], dropped: Sequence[int]) -> list[int]:
    """The first user's message that is left with the answers behind it, unless it is the last one."""
    left = [index for index, message in enumerate(messages) if message.role != "system" and index not in dropped]
    users = [index for index in left if messages[index].role == "user"]
    return [index for index in left if index < users[1]] if len(users) > 1 else []

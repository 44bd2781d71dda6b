"""What a prompt is, once it is made: text, token ids, where each part of it comes from, and what was left out.

Plain frozen values. Made by `encoder`; sent by the engines, shown by the UI, returned to programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from playground.types import TemplateSource

Origin = Literal["template", "control", "tokenizer", "default_system", "system", "user", "assistant"]
"""Who wrote a part of a prompt: the template's plain text; a control token, written by the template (or, where it was
sent as typed, by a message); the tokenizer, which adds tokens that are not in the text; the system prompt that the
template brings along; a message of that role."""

SystemPrompt = Literal["none", "default", "own", "changed", "missing"]
"""none: there is none, and the model was trained without. default: the one that the model was trained with. own: the
user's, for a model that has none of its own. changed: the user's, instead of the trained one. missing: the trained one
is not in the prompt, and no other either."""

WhyUnsent = Literal["format", "dropped"]
"""format: the model's format has no place for it. dropped: the context was full."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a prompt that one hand wrote.

    The spans of a prompt cover its text exactly once, in order, and its tokens too.

    start, end: in characters of the text; equal where the tokenizer added a token that is not in the text.
    first_token, end_token: its tokens. One that reaches over an edge belongs to the span in which its first letter that
        is not white space stands, so a short span may have none.
    message: which of the messages that were given wrote it, counted from 0; None for everything else.
    """

    start: int
    end: int
    first_token: int
    end_token: int
    origin: Origin
    message: int | None = None


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that was given and is not in the prompt."""

    message: int
    why: WhyUnsent


@dataclass(frozen=True, slots=True)
class ControlInText:
    """A control token's spelling inside a message: `message` counts from 0, `start` in characters of its content."""

    message: int
    start: int
    token: str


@dataclass(frozen=True, slots=True)
class TemplateUsed:
    """The template that a prompt was rendered with.

    fingerprint: SHA-256 of its Jinja text, in hex.
    """

    source: TemplateSource
    text: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """What a model is given: the rendered text and its token ids, and what is known of them.

    offsets: for each token the characters (start, end) of the text that it stands for; tokens that share a character
        (its bytes, say) overlap, one that the tokenizer added has an empty range.
    unsent: messages that the prompt leaves out, in order.
    control_in_text: control tokens that users spelled out in what is sent, whatever was made of them.
    notes: sentences about what became of the conversation: whatever does not reach the model is named here.
    """

    text: str
    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    spans: tuple[Span, ...]
    template: TemplateUsed
    context_length: int
    system: SystemPrompt = "none"
    unsent: tuple[Unsent, ...] = ()
    control_in_text: tuple[ControlInText, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def room(self) -> int:
        """Tokens left for the answer."""
        return self.context_length - len(self.token_ids)

    @property
    def dropped(self) -> tuple[int, ...]:
        """The messages that were left out because the context was full."""
        return tuple(each.message for each in self.unsent if each.why == "dropped")


@dataclass(frozen=True, slots=True)
class Budget:
    """How a context is shared out, in tokens; the parts and `room` make `context_length`, where the prompt fits.

    frame: the template's text and control tokens. history: earlier turns. prompt: the message to be answered.
    answer: what the answer may have: what was asked for, or `room` where that is less. room may be negative.
    """

    context_length: int
    system: int
    history: int
    prompt: int
    frame: int
    room: int
    answer: int


PieceKind = Literal["text", "bytes", "control", "tokenizer"]
"""bytes: one of its tokens holds only some bytes of a character. tokenizer: a token that is not in the text."""


class Piece(NamedTuple):
    """The fewest tokens that make whole grapheme clusters: what a person can read of a token, with their count.

    start, end: characters of the text; first_token, end_token: the tokens. Pieces cover text and tokens once, in order.
    (A named tuple, because a preview makes thousands at each key that is pressed.)
    """

    start: int
    end: int
    first_token: int
    end_token: int
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Of a text: tokens, characters (as people count them: grapheme clusters), and tokens with part of one only."""

    tokens: int
    characters: int
    byte_tokens: int

    @property
    def tokens_per_character(self) -> float:
        return self.tokens / self.characters if self.characters else 0.0

    @property
    def byte_share(self) -> float:
        """0 to 1."""
        return self.byte_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as tokens, without any template or added token.

    names: the vocabulary's own spelling of each token. byte_ids: those of them that hold only part of a character.
    """

    text: str
    token_ids: tuple[int, ...]
    names: tuple[str, ...]
    pieces: tuple[Piece, ...]
    counts: TokenCounts
    byte_ids: frozenset[int] = frozenset()

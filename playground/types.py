"""The values that travel between the layers: one type per arrow of docs/architecture.md.

Requests come from people and programs, so they are validated (pydantic, unknown keys refused).
What travels back is made by us, so it is plain frozen dataclasses. Knows neither gradio nor torch.
"""

from __future__ import annotations

import math
import secrets
import uuid
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "abort", "error"]
TemplateSource = Literal["tokenizer", "card", "user", "none"]
ControlText = Literal["plain", "as_typed"]
WhenFull = Literal["refuse", "drop_oldest"]
LoadStage = Literal["waiting", "download", "weights", "start", "adapter"]
SentAs = Literal["token_ids", "text", "messages"]

MAX_SEED = 2**32 - 1
MAX_ADAPTER_SCALE = 2.0


def new_seed() -> int:
    """A seed drawn by the operating system, 0 to 2**32 - 1."""
    return secrets.randbelow(MAX_SEED + 1)


def new_request_id() -> str:
    return uuid.uuid4().hex


def half_character(text: str) -> str:
    """A sentence about the first lone surrogate of `text`, "" if there is none: no UTF-8 can carry such a text."""
    for place, letter in enumerate(text, 1):
        if "\ud800" <= letter <= "\udfff":
            which = f"a lone surrogate, U+{ord(letter):04X} at place {place}"
            return f"the text contains half a character ({which}): remove it"
    return ""


def _whole(value: object) -> object:
    if isinstance(value, str) and (sentence := half_character(value)):
        raise PydanticCustomError("half_character", "{sentence}", {"sentence": sentence})
    return value


Text = Annotated[str, BeforeValidator(_whole)]
"""Text of whole characters."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Value):
    """One message of a conversation, as every chat API has it."""

    role: Role
    content: Text


class SamplingParams(_Value):
    """How the next token is chosen.

    temperature 0 is greedy; top_k 0 and top_p 1 switch these filters off; repetition_penalty 1 is none (it divides
    the positive and multiplies the negative logits of tokens seen in prompt or answer, as in transformers).
    The same seed gives the same answer to the same prompt, whatever else the engine is answering.
    """

    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(ge=0.5, le=3, allow_inf_nan=False)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    stop: Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], Field(max_length=8)] = ()
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(default_factory=new_seed)


class AdapterUse(_Value):
    """The adapter that a request asks for, named so that the same one can be had again.

    id: of the catalog, owner/name on the Hub, or a folder's path.
    revision: the commit of its repository, or "sha256:" and a digest of what a folder holds.
    scale: its effect is multiplied by it; 0 is the plain model.
    """

    id: Text
    revision: Text
    scale: Annotated[float, Field(ge=0, le=MAX_ADAPTER_SCALE, allow_inf_nan=False)] = 1.0


class EndpointUse(_Value):
    """The server that is to answer, instead of an engine of this machine, and how it is spoken to.

    url: the base of an OpenAI-compatible API, such as "http://127.0.0.1:8000/v1".
    model: what the server calls the model, or the adapter, that shall answer.
    key: the server's key, "" if it wants none; never shown, logged or stored.
    messages_only: send the messages and leave the prompt to the server, because its model is another than `model_id`.
    """

    url: Text
    model: Text
    key: SecretStr = SecretStr("")
    messages_only: bool = False

    @property
    def address(self) -> str:
        return address_of(self.url)

    def without_key(self) -> EndpointUse:
        return self.model_copy(update={"key": SecretStr("")})


def address_of(url: str) -> str:
    """Host and port of a server, for people: whatever else a url may hold is not theirs to see."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port is None else f"{host}:{parts.port}"


class PromptOptions(_Value):
    """What the user decides about how a conversation becomes a prompt.

    template: Jinja text to use instead of the model's own.
    control: what a control token becomes that a message spells out, such as "</s>": "plain" text, or, "as_typed",
        the control token itself.
    when_full: "refuse" a prompt that leaves no room for an answer, or "drop_oldest": leave out the oldest whole turns,
        never the system prompt nor the last message, until the longest answer that was asked for fits behind it, or
        half the context is free.
    """

    template: Text | None = None
    control: ControlText = "plain"
    when_full: WhenFull = "refuse"


class GenerationRequest(_Value):
    """One panel's question to one engine.

    turn_id: the same for all panels that were asked at once.
    """

    request_id: str = Field(default_factory=new_request_id)
    turn_id: str = Field(default_factory=new_request_id)
    model_id: Text
    adapter: AdapterUse | None = None
    endpoint: EndpointUse | None = None
    messages: tuple[Message, ...]
    options: PromptOptions = PromptOptions()
    sampling: SamplingParams = Field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True)
class Usage:
    """`dropped_messages`: how many of the request's, its oldest but the system prompt, were left out of the prompt."""

    prompt_tokens: int
    completion_tokens: int
    dropped_messages: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of an answer went, in seconds: waiting for a place, reading the prompt, writing the answer."""

    queued_s: float
    prefill_s: float
    decode_s: float

    @property
    def time_to_first_token_s(self) -> float:
        return self.queued_s + self.prefill_s

    def tokens_per_second(self, completion_tokens: int) -> float:
        """Decode speed: tokens after the first over the time after the first; nan while there is only one."""
        return (completion_tokens - 1) / self.decode_s if completion_tokens > 1 and self.decode_s > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Waiting:
    """Others are being answered. `position` counts from 1, and is 0 once, when the wait is over; `estimate_s` is None
    until there is something to go by."""

    position: int
    estimate_s: float | None = None


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the loading of a model has come; bytes are 0 where they are not known."""

    stage: LoadStage
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """A token that could have come, and the model's probability for it, 0 to 1; ids as of `TokenScore`."""

    token_id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of an answer, the model's own probability for it at that place, and the likeliest there.

    Probabilities are the softmax of the plain logits: before penalty, temperature and filters.
    token_id: -1 where a server tells the token's text alone.
    text: its own text, or the vocabulary's spelling where it is only part of a character; the parts of an answer are
        `ScoredPiece.text`.
    likeliest: the five most probable tokens there, the best first; the one that came may be among them.
    """

    token_id: int
    text: str
    probability: float
    likeliest: tuple[LikelyToken, ...]


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """The fewest tokens of an answer that make whole characters; `is_control` for an end token and its like."""

    text: str
    tokens: tuple[TokenScore, ...]
    is_control: bool = False


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """A piece of an answer: text in whole grapheme clusters, and what is known of its cost so far.

    Only the last chunk has a `finish_reason`. The deltas of all chunks, joined, are the answer.

    token_ids: the tokens that came since the chunk before, as the model wrote them: an end token, what a stop string
        cut off, and those whose text is still to come are among them. Empty where the engine cannot tell.
    scores: how probable the tokens since the chunk before were, of engines that tell it only while they answer.
    sent_as: how a server was given the prompt, in its first chunk; None of engines of this machine.
    """

    delta: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    token_ids: tuple[int, ...] = ()
    scores: tuple[ScoredPiece, ...] = ()
    sent_as: SentAs | None = None


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What one engine takes of one device, and what that device has, in bytes.

    free_bytes: what anyone may still take there, now.
    kv_bytes, kv_used_bytes: the KV cache as it was reserved, and the part of it that holds contexts now.
    """

    device: str
    total_bytes: int
    free_bytes: int
    weight_bytes: int
    kv_bytes: int
    kv_used_bytes: int


@dataclass(frozen=True, slots=True)
class EngineLabel:
    """Which engine it is: a model's own, or the one for the model with an adapter."""

    model_id: str
    adapter: AdapterUse | None = None


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One device with all engines on it; `free_bytes` as of now where an engine can tell."""

    device: str
    total_bytes: int
    free_bytes: int
    engines: tuple[tuple[EngineLabel, DeviceUse], ...] = ()


StreamEvent = Waiting | LoadProgress | GenerationChunk
"""What a panel hears: its place in the line, progress while the model loads, then chunks."""

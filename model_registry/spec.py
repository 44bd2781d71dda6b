"""What a catalog file may say of a model or adapter: frozen values, unknown keys refused, every fact with its source.

Built by `model_registry.catalog_file` from TOML. Knows no tokenizer, no engine and no UI.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model_registry.benchmarks import Benchmark

Architecture = Literal["krutrim", "auto"]
Kind = Literal["chat", "instruction", "base"]
Dtype = Literal["float32", "bfloat16", "float16"]
WeightBits = Literal["8-bit", "4-bit"]
Count = Annotated[int, Field(gt=0, strict=True)]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Languages = Annotated[tuple[str, ...], Field(min_length=1)]

FACTS = ("parameters", "dtype", "context_length", "languages", "released", "weights", "dimensions", "prompt")
"""The fields that state something about the world; `ModelSpec.sources` says for each of them who states it."""

ADAPTER_FACTS = ("base_models", "languages", "about", "weights")
"""The same for `AdapterSpec.sources`."""

HUB_LOGINS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
"""Where huggingface_hub finds this machine's login at the Hub, or what it gets one for. No server may have it."""

NO_ADAPTER = "none"
"""What people choose to have the plain model; no adapter may be called so."""


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Stated):
    """Where the files are: a Hub repository at a revision, or a folder."""

    hub: str | None = None
    revision: str = "main"
    path: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        if (self.hub is None) == (self.path is None):
            raise ValueError("give either `hub` or `path`")
        return self


class Weights(Place):
    """`bytes` is what the files take on disk."""

    bytes: Count


class Dimensions(_Stated):
    """Sizes that memory arithmetic needs.

    head_dim: the model's own width of a head.
    cache_head_dim: the width that the KV cache holds, where that is more (our ALiBi port pads heads for the kernels).
    tied_embeddings: whether the head that makes logits is the embedding table itself, rather than one of its own.
    """

    layers: Count
    hidden_size: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    cache_head_dim: Count | None = None
    vocab_size: Count
    tied_embeddings: Annotated[bool, Field(strict=True)]

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of KV cache that one token of context takes: keys and values of every layer."""
        return 2 * self.layers * self.kv_heads * (self.cache_head_dim or self.head_dim) * bytes_per_value


class PromptFormat(_Stated):
    """How messages become a prompt.

    template: the Jinja text; None where only the tokenizer's own is known.
    template_source: who states the template. "tokenizer": the one in the tokenizer's files rules, `template` serves
        until they are there. "card", "user": `template` rules. "none": the model has no chat format.
    add_special_tokens: whether the tokenizer adds its own (such as BOS) on top of the rendered text.
    default_system: the system prompt the model was trained with, if any.
    system_role, multi_turn: whether the format has a place for a system message, and for earlier turns.
    """

    template: str | None = None
    template_source: Literal["tokenizer", "card", "user", "none"]
    add_special_tokens: bool
    default_system: str = ""
    system_role: bool = True
    multi_turn: bool = True

    @model_validator(mode="after")
    def _template_is_there(self) -> PromptFormat:
        if self.template is None and self.template_source != "tokenizer":
            raise ValueError(f'template_source "{self.template_source}" needs `template` or `template_file`')
        return self


class Statement(_Stated):
    """A sentence or a name, and who says so."""

    text: str
    source: str


class Detail(Statement):
    """A fact that nothing reckons with, for people: such as name "Positions", text "ALiBi"."""

    name: str


class _Sourced(_Stated):
    """What says of each of its facts who states it, and of its licence, which sources may see differently."""

    facts: ClassVar[tuple[str, ...]]

    licences: Annotated[tuple[Statement, ...], Field(min_length=1)]
    sources: dict[str, str]

    @model_validator(mode="after")
    def _every_fact_has_a_source(self) -> _Sourced:
        stated = {fact for fact in self.facts if getattr(self, fact) is not None}
        if missing := sorted(stated - set(self.sources)):
            raise ValueError(f"`sources` does not say where these come from: {', '.join(missing)}")
        if unknown := sorted(set(self.sources) - stated):
            raise ValueError(f"`sources` names facts that the file does not state: {', '.join(unknown)}")
        return self

    @property
    def licence(self) -> str:
        """What the sources say of the licence, in one line: more than one where they disagree."""
        return " / ".join(dict.fromkeys(item.text for item in self.licences))


class ModelSpec(_Sourced):
    """One model of the catalog.

    quantisations: how its weights may be shrunk where 16 bits do not fit; empty where its answers would suffer.
    evaluation: how its source measured it, and what to know before reading `benchmarks`.
    """

    facts = FACTS

    id: Id
    name: str
    aliases: tuple[str, ...] = ()
    family: str
    kind: Kind
    architecture: Architecture = "auto"
    stand_in_for: str | None = None
    parameters: Count
    dtype: Dtype
    quantisations: tuple[WeightBits, ...] = ("8-bit", "4-bit")
    context_length: Count
    languages: Languages
    released: datetime.date | None = None
    weights: Weights
    dimensions: Dimensions
    prompt: PromptFormat
    limits: tuple[Statement, ...] = ()
    details: tuple[Detail, ...] = ()
    evaluation: tuple[Statement, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def is_stand_in(self) -> bool:
        return self.stand_in_for is not None

    @property
    def names(self) -> tuple[str, ...]:
        """What others call it: its name, which is for people, its id, aliases, and its repository or folder."""
        place = self.weights.path
        where = (str(self.weights.hub),) if place is None else (str(place.resolve()), place.name)
        return (self.name, self.id, *self.aliases, *where)


class AdapterSpec(_Sourced):
    """One LoRA adapter of the catalog.

    base_models: ids of the models that it was trained for.
    languages: those whose answers it changes.
    about: one line for people on what it does.
    """

    facts = ADAPTER_FACTS

    id: Id
    name: str
    base_models: Annotated[tuple[str, ...], Field(min_length=1)]
    languages: Languages
    about: str
    weights: Place
    limits: tuple[Statement, ...] = ()

    @field_validator("id")
    @classmethod
    def _is_not_none(cls, value: str) -> str:
        if value == NO_ADAPTER:
            raise ValueError("no adapter can be called `none`, for that is the plain model")
        return value


class ServerSpec(_Stated):
    """An OpenAI-compatible server that answers for a model of the catalog.

    serves: the id of that model, whose tokenizer and template make the prompts.
    url: the base of its API, such as "http://127.0.0.1:8000/v1".
    models: what the server calls the model, then what it calls adapters of it, if it has any.
    key: the environment variable, or the Space's secret, that holds the server's key; None if it wants none.
    messages_only: leave the prompt to the server, because its model or template is another.
    """

    id: Id
    name: str
    serves: str
    url: Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$")]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    messages_only: Annotated[bool, Field(strict=True)] = False

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            there = parts.hostname and parts.port != 0
        except ValueError as error:
            raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}") from error
        if not there:
            raise ValueError("it names no host, or port 0: write one such as http://10.0.0.7:8000/v1")
        return value

    @field_validator("key")
    @classmethod
    def _is_no_login(cls, value: str | None) -> str | None:
        if value in HUB_LOGINS:
            raise ValueError(
                f"{value} is this machine's login at the Hub, which goes to no server: put the server's key into a "
                "variable of another name"
            )
        return value

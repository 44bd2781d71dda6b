"""Five named endpoints for programs: /models, /inspect_adapter, /render_prompt, /tokenize and /generate.

They go the same way as the panels, through the pool, and answer in plain JSON; errors reach the client as one readable
sentence. Knows no panel. Wired by `build`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.admission.lengths import check_answer, check_messages, check_texts
from playground.errors import PlaygroundError
from playground.types import (
    AdapterUse,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    PromptOptions,
    SamplingParams,
    StreamEvent,
    Waiting,
)
from playground.ui.api.prompts import rendered, tokenized
from playground.ui.api.reading import (
    COUNT,
    OPTIONAL_TEXT,
    SCALE,
    TEXT,
    checked,
    read_messages,
    read_options,
    read_sampling_json,
)
from playground.ui.api.servers import asked_server, described, endpoint, told
from playground.ui.event_kinds import ANSWERS
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

INSPECTIONS = 8
LOOKS = 2
"""Prompts and texts that are laid out at a time; the others wait. Each takes the interpreter from those that stream."""

LONGEST_ANSWER: int = SamplingParams.model_fields["max_new_tokens"].default
IDENTITY = frozenset({"name", "family", "kind", "aliases", "languages"})
STATEMENTS = frozenset({"licences", "limits", "details", "evaluation", "benchmarks", "sources"})
FACTS_TOLD = (
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "parameters",
    "bytes",
    "digest",
    "base_model_name",
    "warnings",
)

log = logging.getLogger(__name__)


def wire_api(registry: Registry, pool: Pool, edit_templates: bool, entrance: Entrance) -> None:
    """`edit_templates`: whether programs may send templates of their own."""
    api = Api(registry, pool, edit_templates, entrance)
    gr.api(api.models, api_name="models", queue=False)
    gr.api(api.inspect_adapter, api_name="inspect_adapter", concurrency_id="api-inspect", concurrency_limit=INSPECTIONS)
    gr.api(api.render_prompt, api_name="render_prompt", queue=False)
    gr.api(api.tokenize, api_name="tokenize", queue=False)
    gr.api(api.generate, api_name="generate", concurrency_id="api-generate", **ANSWERS)


@dataclass(frozen=True)
class Api:
    registry: Registry
    pool: Pool
    edit_templates: bool
    entrance: Entrance = field(default_factory=Entrance)
    looks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS))

    async def models(self) -> list[dict[str, Any]]:
        """Every model of the catalog, what is known of it and how far it is from answering."""
        with sentences():
            return [self._describe(spec) for spec in self.registry]

    async def inspect_adapter(self, model_id: str, adapter: str) -> dict[str, Any]:
        """What is known of an adapter that may be used with this model, and warnings about it; a refusal is an error.

        adapter: an id of the catalog, owner/name or owner/name@revision on the Hub, or a folder. Does not load it.
        """
        with sentences():
            found = await self._adapter(self._spec(model_id), adapter)
            if found is None:
                raise PlaygroundError("adapter is empty: name an adapter of the catalog, of the Hub, or a folder.")
            known = {"id": found.id, "name": found.name, "revision": found.revision, "model_id": found.model_id}
            return plain({**known, **{name: getattr(found.facts, name) for name in FACTS_TOLD}})

    async def render_prompt(
        self,
        request: gr.Request,
        model_id: str,
        messages: list[dict[str, str]] | str,
        options: dict[str, Any] | str | None = None,
        max_new_tokens: int = LONGEST_ANSWER,
    ) -> dict[str, Any]:
        """The exact text and token ids that a model receives for these messages, longer than its context or not, and
        where each part comes from: docs/prompt-lens.md names the keys. Loads the tokenizer only.

        messages: [{"role": "system" | "user" | "assistant", "content": "..."}], or the same as a JSON string.
        options: control ("plain" or "as_typed": what becomes of control tokens that messages spell out), when_full
            ("refuse" or "drop_oldest"), template (Jinja, instead of the model's own); all optional.
        max_new_tokens: the longest answer that is wished for. `room` is what the context leaves for one; below 1,
            /generate refuses.
        """
        with sentences():
            asked, wishes = self._asked(messages, options)
            answer_tokens = checked("max_new_tokens", max_new_tokens, COUNT)
            return await self._look(request, self._spec(model_id), rendered, asked, wishes, answer_tokens)

    async def tokenize(self, request: gr.Request, model_id: str, text: str) -> dict[str, Any]:
        """A text as a model's tokens, with their names in its vocabulary and what they cost; no template around it.

        Loads the tokenizer only. What looks like a control token is plain text here.
        """
        with sentences():
            spec, asked = self._spec(model_id), checked("text", text, TEXT)
            check_texts({"text": asked}, self.entrance.limits)
            return await self._look(request, spec, tokenized, asked)

    async def generate(
        self,
        request: gr.Request,
        model_id: str,
        messages: list[dict[str, str]] | str,
        sampling: dict[str, Any] | str | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
        options: dict[str, Any] | str | None = None,
        server: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Stream an answer: {delta, text, finish_reason, usage, timings, token_ids, seed, adapter, server, sent_as,
        scores}; before it {waiting} with position and estimate_s while others are answered, {loading} while the model
        loads. The last update has all token ids of the answer; usage.dropped_messages says what the prompt left out.

        sampling: temperature (0 is greedy), top_p, top_k, repetition_penalty, max_new_tokens, stop, seed; all optional.
        adapter: as /inspect_adapter takes it; adapter_scale, 0 to 2, multiplies its effect.
        options: as /render_prompt takes them.
        server: a server's id of /models, whose `models` are then the adapters; "this machine" for none. Left out: the
            model's first server, if it has one. sent_as says how that got the prompt (token_ids, text, messages),
            scores how probable it says its tokens were. An address cannot be given here.
        """
        with sentences():
            spec, scale = self._spec(model_id), checked("adapter_scale", adapter_scale, SCALE)
            visitor = self.entrance.visitor(request)
            self.entrance.gate.require(visitor)  # before a request of theirs costs anything
            asked, wishes = self._asked(messages, options)
            params = self._sampling(sampling)
            where = asked_server(self.pool.elsewhere, spec.id, checked("server", server, OPTIONAL_TEXT))
            use = endpoint(self.pool.elsewhere, spec.id, where, self._text(adapter), scale) if where else None
            found = None if use else await self._adapter(spec, adapter)
            wanted = GenerationRequest(
                model_id=spec.id,
                adapter=found.use(scale) if found else None,
                endpoint=use,
                messages=asked,
                options=wishes,
                sampling=params,
            )
            self.entrance.gate.admit(visitor, [wanted])
            text, how = "", None
            tokens: list[int] = []
            async with aclosing(self.entrance.gate.stream(visitor, wanted, self.pool.stream)) as events:
                async for event in events:
                    if isinstance(event, GenerationChunk):
                        text += event.delta
                        tokens += event.token_ids
                        how = event.sent_as or how
                    step = _step(event, text, tokens, wanted)
                    yield {**step, "server": told(use, where), "sent_as": how}

    async def _look(
        self, request: gr.Request, spec: ModelSpec, look: Callable[..., dict[str, Any]], *arguments: Any
    ) -> Any:
        """What `look` finds with the encoder. It counts among the prompts of a minute. Raises PlaygroundError."""
        self.entrance.gate.count(self.entrance.visitor(request))
        encoder = await self.pool.encoder(spec.id)
        async with self.looks:
            return await asyncio.to_thread(lambda: plain(look(encoder, *arguments)))

    def _asked(
        self, messages: list[dict[str, str]] | str, options: dict[str, Any] | str | None
    ) -> tuple[tuple[Message, ...], PromptOptions]:
        """Raises PlaygroundError."""
        asked, wishes = read_messages(messages), read_options(options, self.edit_templates)
        check_messages(asked, self.entrance.limits)
        check_texts({"options.template": wishes.template or ""}, self.entrance.limits)
        return asked, wishes

    def _sampling(self, sampling: dict[str, Any] | str | None) -> SamplingParams:
        """Raises PlaygroundError."""
        limits = self.entrance.limits
        read = read_sampling_json(sampling, LONGEST_ANSWER if limits.answer_tokens is None else limits.answer_tokens)
        check_answer(read.max_new_tokens, limits)
        check_texts({"sampling.stop": "".join(read.stop)}, limits)
        return read

    async def _adapter(self, spec: ModelSpec, adapter: Any) -> CheckedAdapter | None:
        """None where none is named. Raises PlaygroundError."""
        text = self._text(adapter)
        return await self.pool.adapter(spec.id, text) if text else None

    def _text(self, adapter: Any) -> str:
        """Raises PlaygroundError."""
        text = (checked("adapter", adapter, OPTIONAL_TEXT) or "").strip()
        check_texts({"adapter": text}, self.entrance.limits)
        return text

    def _spec(self, model_id: str) -> ModelSpec:
        """Raises PlaygroundError."""
        return self.registry.get(checked("model_id", model_id, TEXT))

    def _describe(self, spec: ModelSpec) -> dict[str, Any]:
        status = self.pool.status(spec.id)
        facts = spec.model_dump(mode="json", include={*IDENTITY, *STATEMENTS})
        return {
            "model_id": spec.id,
            **facts,
            "released": spec.released.isoformat() if spec.released else None,
            "parameters": spec.parameters,
            "context_length": spec.context_length,
            "licence": spec.licence,
            "state": status.state,
            "detail": status.detail,
            "is_stand_in": spec.is_stand_in,
            "stand_in_for": spec.stand_in_for,
            "default_system": spec.prompt.default_system,
            "adapters": [asdict(choice) for choice in self.pool.adapters(spec.id)],
            "servers": described(self.pool.elsewhere, spec.id),
        }


def _step(event: StreamEvent, text: str, token_ids: Sequence[int], request: GenerationRequest) -> dict[str, Any]:
    """One update; every key is in every update, so that a client needs no second look."""
    asked = {"seed": request.sampling.seed, "adapter": _named(request.adapter)}
    if isinstance(event, LoadProgress | Waiting):
        nothing: dict[str, Any] = {"finish_reason": None, "usage": None, "timings": None, "token_ids": [], "scores": []}
        waiting = asdict(event) if isinstance(event, Waiting) else None
        loading = asdict(event) if isinstance(event, LoadProgress) else None
        return {"delta": "", "text": text, **nothing, **asked, "loading": loading, "waiting": waiting}
    told = {"text": text, "token_ids": token_ids if event.finish_reason else []}
    return plain({**asdict(event), **told, **asked, "loading": None, "waiting": None})


def _named(adapter: AdapterUse | None) -> dict[str, Any] | None:
    return adapter.model_dump() if adapter else None


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return json.loads(json.dumps(value))


@contextmanager
def sentences() -> Iterator[None]:
    """Errors as Gradio carries them to a client: the sentence of ours, a plain one for everything else."""
    try:
        yield
    except PlaygroundError as error:
        raise gr.Error(_whole(str(error)), print_exception=False) from error
    except Exception as error:
        log.exception("API request")
        raise gr.Error("Unexpected error: the server's log has the details.", print_exception=False) from error


def _whole(sentence: str) -> str:
    """A sentence may quote what was sent, a key with half a character in it, say, and that no JSON can carry."""
    return sentence.encode("utf-8", "replace").decode("utf-8")

"""Four named endpoints for programs: /models, /inspect_adapter, /render_prompt and /generate.

They go the same way as the panels, through the pool, and answer in plain JSON; errors reach the client as one readable
sentence. Knows no panel. Wired by `build`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import gradio as gr
from pydantic import Field, TypeAdapter, ValidationError

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.errors import PlaygroundError
from playground.types import (
    MAX_ADAPTER_SCALE,
    AdapterUse,
    GenerationRequest,
    LoadProgress,
    Message,
    SamplingParams,
    Text,
)

if TYPE_CHECKING:
    from playground.engines.pool import EnginePool

GENERATIONS = 64
INSPECTIONS = 8
MESSAGES = TypeAdapter(tuple[Message, ...])
SAMPLING = TypeAdapter(SamplingParams)
MODEL_ID: TypeAdapter[str] = TypeAdapter(Text)
ADAPTER: TypeAdapter[str | None] = TypeAdapter(Text | None)
SCALE: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=0, le=MAX_ADAPTER_SCALE, allow_inf_nan=False)])
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


def wire_api(registry: Registry, pool: EnginePool) -> None:
    api = Api(registry, pool)
    gr.api(api.models, api_name="models", queue=False)
    gr.api(api.inspect_adapter, api_name="inspect_adapter", concurrency_id="api-inspect", concurrency_limit=INSPECTIONS)
    gr.api(api.render_prompt, api_name="render_prompt", queue=False)
    gr.api(api.generate, api_name="generate", concurrency_id="api-generate", concurrency_limit=GENERATIONS)


@dataclass(frozen=True)
class Api:
    registry: Registry
    pool: EnginePool

    async def models(self) -> list[dict[str, Any]]:
        """Every model of the catalog, what is known of it and how far it is from answering."""
        with sentences():
            return [self._describe(spec) for spec in self.registry]

    async def inspect_adapter(self, model_id: str, adapter: str) -> dict[str, Any]:
        """What is known of an adapter that may be used with this model, and warnings about it; a refusal is an error.

        adapter: an id of the catalog, owner/name or owner/name@revision on the Hub, or a folder. Does not load it.
        """
        with sentences():
            checked = await self._adapter(self._spec(model_id), adapter)
            if checked is None:
                raise PlaygroundError("adapter is empty: name an adapter of the catalog, of the Hub, or a folder.")
            known = {"id": checked.id, "name": checked.name, "revision": checked.revision, "model_id": checked.model_id}
            return plain({**known, **{name: getattr(checked.facts, name) for name in FACTS_TOLD}})

    async def render_prompt(self, model_id: str, messages: list[dict[str, str]] | str) -> dict[str, Any]:
        """The exact text and token ids that a model receives for these messages, whatever their length.

        Loads the tokenizer only. `room`: tokens that the context leaves for an answer; below 1, /generate refuses.

        messages: [{"role": "system" | "user" | "assistant", "content": "..."}], or the same as a JSON string.
        """
        with sentences():
            asked = read_messages(messages)
            encoder = await self.pool.encoder(self._spec(model_id).id)
            prompt = await asyncio.to_thread(encoder.preview, asked)
            return plain({**asdict(prompt), "room": prompt.room})

    async def generate(
        self,
        model_id: str,
        messages: list[dict[str, str]] | str,
        sampling: dict[str, Any] | str | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> AsyncIterator[dict[str, Any]]:
        """Stream an answer: {delta, text, finish_reason, usage, timings, seed, adapter}, or {loading} while it loads.

        sampling: temperature (0 is greedy), top_p, top_k, repetition_penalty, max_new_tokens, stop, seed; all optional.
        adapter: as /inspect_adapter takes it; adapter_scale, 0 to 2, multiplies its effect.
        """
        with sentences():
            spec, scale = self._spec(model_id), _validate("adapter_scale", adapter_scale, SCALE)
            checked = await self._adapter(spec, adapter)
            request = GenerationRequest(
                model_id=spec.id,
                adapter=checked.use(scale) if checked else None,
                messages=read_messages(messages),
                sampling=read_sampling_json(sampling),
            )
            text = ""
            async with aclosing(self.pool.stream(request)) as events:
                async for event in events:
                    text += "" if isinstance(event, LoadProgress) else event.delta
                    yield _step(event, text, request)

    async def _adapter(self, spec: ModelSpec, adapter: Any) -> CheckedAdapter | None:
        """None where none is named. Raises PlaygroundError."""
        text = (_validate("adapter", adapter, ADAPTER) or "").strip()
        return await self.pool.adapter(spec.id, text) if text else None

    def _spec(self, model_id: str) -> ModelSpec:
        """Raises PlaygroundError."""
        return self.registry.get(_validate("model_id", model_id, MODEL_ID))

    def _describe(self, spec: ModelSpec) -> dict[str, Any]:
        status = self.pool.status(spec.id)
        facts = spec.model_dump(mode="json", include={"name", "family", "kind", "aliases", "languages", "licences"})
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
        }


def _step(event: Any, text: str, request: GenerationRequest) -> dict[str, Any]:
    """One update; every key is in every update, so that a client needs no second look."""
    asked = {"seed": request.sampling.seed, "adapter": _named(request.adapter)}
    if isinstance(event, LoadProgress):
        nothing = {"finish_reason": None, "usage": None, "timings": None}
        return {"delta": "", "text": text, **nothing, **asked, "loading": asdict(event)}
    return plain({**asdict(event), "text": text, **asked, "loading": None})


def _named(adapter: AdapterUse | None) -> dict[str, Any] | None:
    return adapter.model_dump() if adapter else None


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return json.loads(json.dumps(value))


def read_messages(messages: list[dict[str, str]] | str) -> tuple[Message, ...]:
    """Raises PlaygroundError."""
    read = _validate("messages", _json("messages", messages), MESSAGES)
    if not read:
        raise PlaygroundError("messages is empty: give at least one message with role and content.")
    return read


def read_sampling_json(sampling: dict[str, Any] | str | None) -> SamplingParams:
    """None and "" are no wishes at all. Raises PlaygroundError."""
    wishes = {} if sampling is None or sampling == "" else _json("sampling", sampling)
    return _validate("sampling", wishes, SAMPLING)


def _json(name: str, value: Any) -> Any:
    """JSON text as what it says. Read by the standard library, which lets half a character pass, to be told apart."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlaygroundError(f"{name}: Invalid JSON: {error}.") from error


def _validate(name: str, value: Any, kind: TypeAdapter[Any]) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise PlaygroundError(f"{where}: {first['msg']}.") from error


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

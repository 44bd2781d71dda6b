"""Stand-ins for the engine pool, for what real engines rarely do: never answer, fail midway, say hostile things.

A `Script` per model tells what its stream says. Registered the way the real pool is: passed to `build`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from fake_encoder import FakeEncoder

from model_registry.registry import Registry
from model_registry.spec import FACTS, Dimensions, ModelSpec, PromptFormat, Statement, Weights
from playground.adapters.facts import AdapterChoice, AdapterFacts, CheckedAdapter
from playground.engines.elsewhere import Elsewhere
from playground.engines.pooling.model_status import ModelState, ModelStatus
from playground.errors import AdapterError, EngineBusyError, LoadCancelledError
from playground.types import (
    AdapterUse,
    DeviceReport,
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    ScoredPiece,
    SentAs,
    StreamEvent,
    Timings,
    Usage,
)


@dataclass(frozen=True)
class Script:
    """What a model does: `loading` first, then `pieces` with `pause_s` before each, then `error` or the end.

    With `hangs` it never goes on after the pieces; without any, it is still loading, and a load can be cancelled.
    `state` to `place` are its status, until it is cancelled or unloaded.
    `scores` is what it says of the probabilities of its answer; with None it says nothing, for ever. Without
    `knows_tokens` its answers come without their tokens, which are else the numbers of the pieces.
    `sent_as` is how it was given a prompt that went to a server, `told` what that one told of probabilities.
    `choices` are the adapters that its menu offers. Of all that are named, `refusals` says which are refused and
    `warnings` what is odd; `inspections` are the seconds of a check. What is in none of them is accepted at once.
    """

    pieces: Sequence[str] = ("Hello", ", ", "world", ".")
    pause_s: float = 0.0
    loading: Sequence[LoadProgress] = ()
    error: Exception | None = None
    hangs: bool = False
    encoder_hangs: bool = False
    finish_reason: FinishReason | None = "stop"
    state: ModelState = "ready"
    detail: str = "ready"
    progress: LoadProgress | None = None
    place: str = ""
    choices: Sequence[AdapterChoice] = ()
    refusals: Mapping[str, Exception] = field(default_factory=dict)
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inspections: Mapping[str, float] = field(default_factory=dict)
    scores: Sequence[ScoredPiece] | Exception | None = None
    knows_tokens: bool = True
    sent_as: SentAs | None = "token_ids"
    told: Sequence[ScoredPiece] = ()


@dataclass
class FakePool:
    """Speaks as scripted; with an adapter, that one's name comes first. `running` counts open streams by model,
    `scoring` those for probabilities by request; `requests` keeps what was asked, `checked` which adapters were.

    `reports` is what `memory` says; `preloaded`, `cancelled` and `unloaded` keep the models of these verbs.
    """

    registry: Registry
    scripts: Mapping[str, Script] = field(default_factory=dict)
    requests: list[GenerationRequest] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    scoring: Counter[str] = field(default_factory=Counter)
    encoded: Counter[str] = field(default_factory=Counter)
    reports: tuple[DeviceReport, ...] = ()
    preloaded: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    checked: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False
    elsewhere: Elsewhere = field(init=False)

    def __post_init__(self) -> None:
        self.elsewhere = Elsewhere(self.registry)

    def status(self, model_id: str) -> ModelStatus:
        if model_id in (*self.cancelled, *self.unloaded):
            return ModelStatus(model_id, "local", "on this machine")
        script = self._script(model_id)
        return ModelStatus(model_id, script.state, script.detail, script.progress, script.place)

    def memory(self) -> tuple[DeviceReport, ...]:
        return self.reports

    async def encoder(self, model_id: str) -> FakeEncoder:
        self.encoded[model_id] += 1
        if self._script(model_id).encoder_hangs:
            await asyncio.Event().wait()
        return FakeEncoder(self.registry.get(model_id))

    def adapters(self, model_id: str) -> tuple[AdapterChoice, ...]:
        return tuple(self._script(model_id).choices)

    async def adapter(self, model_id: str, text: str, revision: str = "") -> CheckedAdapter:
        self.checked.append((model_id, text))
        script = self._script(model_id)
        await asyncio.sleep(script.inspections.get(text, 0))
        if text in script.refusals:
            raise script.refusals[text]
        return checked_adapter(model_id, text, revision, script.warnings.get(text, ()))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        self.requests.append(request)
        self.running[request.model_id] += 1
        try:
            encoder = FakeEncoder(self.registry.get(request.model_id))
            prompt = encoder.encode(request.messages, request.options, request.sampling.max_new_tokens)
            usage = Usage(len(prompt.token_ids), 0, len(prompt.dropped))
            async for event in self._play(request.model_id, usage, self._attached(request)):
                yield self._from_server(request, event)
        finally:
            self.running[request.model_id] -= 1

    def _from_server(self, request: GenerationRequest, event: StreamEvent) -> StreamEvent:
        script = self._script(request.model_id)
        if request.endpoint is None or not isinstance(event, GenerationChunk):
            return event
        return replace(event, sent_as=script.sent_as, scores=tuple(script.told) if event.finish_reason else ())

    def _attached(self, request: GenerationRequest) -> AdapterUse | None:
        use = request.adapter
        if use and use.id not in {adapter_id(text) for model_id, text in self.checked if model_id == request.model_id}:
            raise AdapterError(f"{use.id} was not inspected for {request.model_id}.")
        return use

    async def _play(self, model_id: str, usage: Usage, adapter: AdapterUse | None) -> AsyncGenerator[StreamEvent, None]:
        script = self._script(model_id)
        if adapter:
            yield LoadProgress("adapter")
            yield GenerationChunk(f"[{adapter.id} × {adapter.scale:g}] ")
        for progress in script.loading:
            yield progress
            await asyncio.sleep(script.pause_s)
        for number, piece in enumerate(script.pieces, 1):
            await asyncio.sleep(script.pause_s)
            yield GenerationChunk(
                piece,
                None,
                replace(usage, completion_tokens=number),
                Timings(0.0, 0.1, 0.01 * number),
                (number - 1,) if script.knows_tokens else (),
            )
        if script.loading and script.hangs and not script.pieces:
            await self._until_cancelled(model_id)
        if script.hangs:
            await asyncio.Event().wait()
        if script.error:
            raise script.error
        if script.finish_reason:
            count = len(script.pieces)
            said = replace(usage, completion_tokens=count)
            yield GenerationChunk("", script.finish_reason, said, Timings(0.0, 0.1, 0.01 * max(count, 1)))

    async def _until_cancelled(self, model_id: str) -> None:
        already = self.cancelled.count(model_id)
        while self.cancelled.count(model_id) == already:
            await asyncio.sleep(0.01)
        raise LoadCancelledError(f"Loading {self.registry.get(model_id).name} was cancelled: ask again to load it.")

    def preload(self, model_ids: Sequence[str]) -> None:
        self.preloaded += [self.registry.get(model_id).id for model_id in model_ids]

    def expect(self, requests: Sequence[GenerationRequest]) -> None:
        self.preload([request.model_id for request in requests if request.endpoint is None])

    def cancel(self, model_id: str) -> None:
        self.cancelled.append(self.registry.get(model_id).id)

    async def unload(self, model_id: str) -> None:
        if self.running[model_id]:
            name = self.registry.get(model_id).name
            raise EngineBusyError(f"{name} is answering: wait until it is done, or stop it.")
        self.unloaded.append(self.registry.get(model_id).id)

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        scores = self._script(request.model_id).scores
        self.scoring[request.request_id] += 1
        try:
            if scores is None:
                await asyncio.Event().wait()
            if isinstance(scores, Exception):
                raise scores
            return tuple(scores or ())
        finally:
            self.scoring[request.request_id] -= 1

    async def abort(self, request_id: str) -> None:
        raise AssertionError("the page closes streams instead")

    async def close(self) -> None:
        self.closed = True

    def _script(self, model_id: str) -> Script:
        return self.scripts.get(model_id, Script())


def adapter_id(text: str) -> str:
    return text.split("@")[0]


def checked_adapter(
    model_id: str, text: str, revision: str = "", warnings: Sequence[str] = (), r: int = 8
) -> CheckedAdapter:
    """As if found by `text`: a folder with a path, else a repository at the revision that is named, or at "main"."""
    digest = sha256(text.encode()).hexdigest()
    is_folder = text.startswith("/")
    facts = AdapterFacts(
        r=r,
        lora_alpha=16,
        use_rslora=False,
        target_modules=("blocks.0.attn.Wqkv", "blocks.1.attn.Wqkv"),
        rank_pattern={},
        alpha_pattern={},
        bytes=1_200_000,
        parameters=300_000,
        base_model_name="fake/model",
        revision="",
        digest=digest,
        warnings=tuple(warnings),
    )
    commit = sha256((text if "@" in text else f"{text}@main").encode()).hexdigest()[:40]
    found = revision or (f"sha256:{digest}" if is_folder or "/" not in text else commit)
    return CheckedAdapter(adapter_id(text), adapter_id(text).upper(), found, model_id, Path("/"), facts)


def spec(model_id: str, *, stand_in_for: str | None = None, **prompt: object) -> ModelSpec:
    """A small model for the catalog; `prompt` overrides facts of its prompt format."""
    format_ = {"template": "", "template_source": "card", "add_special_tokens": False, **prompt}
    return ModelSpec(
        id=model_id,
        name=model_id.upper(),
        family="Fake",
        kind="chat",
        stand_in_for=stand_in_for,
        parameters=2_000_000,
        dtype="float32",
        context_length=1000,
        languages=("en", "ko"),
        weights=Weights(hub="fake/model", bytes=8_000_000),
        dimensions=Dimensions(
            layers=1, hidden_size=8, heads=1, kv_heads=1, head_dim=8, vocab_size=256, tied_embeddings=True
        ),
        prompt=PromptFormat.model_validate(format_),
        licences=(Statement(text="Apache-2.0", source="us"),),
        sources=dict.fromkeys((fact for fact in FACTS if fact != "released"), "us"),
    )

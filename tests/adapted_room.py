"""Engines that attach adapters, and adapters for them that were inspected as the app would have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from engine_room import Kind, make_engine
from tiny_adapters import write_adapter
from transformers import PreTrainedModel

from playground.adapters.base_layers import layers_of
from playground.adapters.facts import BaseLayers, CheckedAdapter
from playground.adapters.inspect import inspect_adapter
from playground.engines.adapted import SharedWeights
from playground.engines.in_process import Weights
from playground.types import AdapterUse, GenerationRequest

KV_TOKENS = 2048


def checked(folder: Path, layers: BaseLayers, model_id: str = "tiny") -> CheckedAdapter:
    facts = inspect_adapter(folder, layers)
    return CheckedAdapter(folder.name, f"The {folder.name}", f"sha256:{facts.fingerprint}", model_id, folder, facts)


def adapters(root: Path, model: PreTrainedModel, *targets: list[str]) -> list[CheckedAdapter]:
    """One for each list of layers, named after its first."""
    folders = [write_adapter(root / names[0], model, target_modules=names) for names in targets]
    return [checked(folder, layers_of(model)) for folder in folders]


def base_engine(model: PreTrainedModel, kind: Kind = "batched", **options: int) -> Any:
    """As the loader makes it: its views are engines of the same kind."""

    def start(tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> Any:
        return make_engine(tree, kind=kind, weights=weights, kv_tokens=kv_tokens, **options)

    return start(model, KV_TOKENS, SharedWeights(model, "tiny", start))


async def attach(engine: Any, adapter: CheckedAdapter, scale: float = 1.0, kv_tokens: int = KV_TOKENS) -> Any:
    return await asyncio.to_thread(engine.attach, adapter, scale, kv_tokens)


def using(request: GenerationRequest, adapter: CheckedAdapter | AdapterUse, scale: float = 1.0) -> GenerationRequest:
    use = adapter.use(scale) if isinstance(adapter, CheckedAdapter) else adapter
    return request.model_copy(update={"adapter": use})

"""Puts the models of a Space to where grants find them, before the page is launched: planned, read, moved, adapted.

ZeroGPU keeps what lies on "cuda" when the page is launched, and puts it onto the GPU of every worker; later is too
late. So all models are read at the start, and all adapters of the catalog. Called by the composition; knows no page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from transformers import PreTrainedModel

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.adapted import SharedWeights
from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.engines.checkpoints.checkpoint import MODEL_FILES, fetch
from playground.engines.checkpoints.tokenizers import load_tokenizer
from playground.engines.checkpoints.weights import load_model
from playground.engines.in_process import InProcessEngine, Weights
from playground.errors import AdapterError
from playground.placement.plan import Device, Placement, PlanOptions
from playground.placement.planner import plan
from playground.prompting.encoder import PromptEncoder

log = logging.getLogger(__name__)

Check = Callable[[ModelSpec], Iterable[CheckedAdapter]]
"""The adapters that shall lie beside a model."""


class Placed:
    """A model on its device, with adapters, of which a worker makes engines.

    Args:
        spec: the model.
        model: that nobody has run yet.
        encoder: for the workers alone: a lock that somebody here holds while a worker is forked stays locked there.
        placement: where it lies, and how large its cache will be.
    """

    def __init__(self, spec: ModelSpec, model: PreTrainedModel, encoder: PromptEncoder, placement: Placement) -> None:
        self.spec = spec
        self.placement = placement
        self._model = model
        self._encoder = encoder
        self._weights = SharedWeights(model, spec.id, self._start)

    @property
    def view_tokens(self) -> int:
        """Tokens of context for the model with an adapter: one full context, for the card is shared by all panels."""
        return self.spec.context_length

    def keep(self, adapter: CheckedAdapter) -> None:
        """Put an adapter's weights beside the model's, to stay. Raises AdapterError."""
        self._weights.keep(adapter)

    def start(self) -> InProcessEngine:
        """The model's engine; in a worker, once."""
        return self._start(self._model, self.placement.kv_tokens, self._weights)

    def _start(self, tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> InProcessEngine:
        # To record CUDA graphs takes longer than a grant could win by them.
        options = BatchedOptions(kv_tokens=kv_tokens, cuda_graphs=False)
        return BatchedEngine(tree, self._encoder, options=options, weights=weights)


def place(specs: Sequence[ModelSpec], device: Device, options: PlanOptions, adapters: Check) -> dict[str, Placed]:
    """All these models on the device, by their ids; downloads what is not here. Takes minutes.

    Args:
        specs: the models.
        device, options: as `capacity` has them.
        adapters: those that shall lie beside each.

    Raises:
        PlacementError: they do not fit together.
        LoadError: the files of one cannot be had or read.
    """
    torch.set_num_threads(1)  # a fork waits for ever for OpenMP's threads, where the process that it is of had some
    together = plan(specs, [device], options)
    placed = {}
    for spec in specs:
        one = placed[spec.id] = _placed(spec, together.of(spec.id), device)
        for adapter in adapters(spec):
            _keep(one, adapter)
    return placed


def _placed(spec: ModelSpec, placement: Placement, device: Device) -> Placed:
    begin = time.monotonic()
    log.info("%s: reading its weights (%s)", spec.name, placement.reason)
    folder = fetch(spec, MODEL_FILES)
    encoder = PromptEncoder(spec, load_tokenizer(spec, folder))
    # Read by way of the CPU: on ZeroGPU, what writes to a GPU by itself finds none here.
    on_cpu = replace(placement, shares=tuple(replace(share, device="cpu") for share in placement.shares))
    model = load_model(spec, folder, on_cpu, lambda progress: None)
    placed = Placed(spec, cast(PreTrainedModel, model.to(device.kind)), encoder, placement)  # type: ignore[arg-type]
    log.info("%s: reading its weights took %.1f s", spec.name, time.monotonic() - begin)
    return placed


def _keep(placed: Placed, adapter: CheckedAdapter) -> None:
    """One adapter that cannot be had takes nobody else's away: whoever chooses it is told why."""
    try:
        placed.keep(adapter)
    except AdapterError as error:
        log.warning("%s with %s: %s", placed.spec.name, adapter.name, error)

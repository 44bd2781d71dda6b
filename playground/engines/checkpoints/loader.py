"""A catalog entry and a place to a running engine: files, tokenizer, weights, engine.

Called by the engine's own process, where nothing else loads. Says in the log and to `report` how far it is. The one
place where a full device at load time becomes a sentence. Knows no UI.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from model_registry.spec import ModelSpec
from playground.engines.adapted import SharedWeights, import_peft
from playground.engines.base import Engine
from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.engines.checkpoints.checkpoint import MODEL_FILES, fetch
from playground.engines.checkpoints.quantisation import recordable
from playground.engines.checkpoints.tokenizers import load_tokenizer
from playground.engines.checkpoints.weights import load_model
from playground.engines.decoding.failures import is_memory
from playground.engines.in_process import InProcessEngine, Weights
from playground.engines.sharded import ShardedEngine, ShardedOptions
from playground.errors import OutOfMemoryError
from playground.placement.plan import Placement
from playground.placement.quantising import INSTALL, quantisation_available
from playground.prompting.encoder import PromptEncoder
from playground.types import LoadProgress

Report = Callable[[LoadProgress], None]

log = logging.getLogger(__name__)


def load_engine(spec: ModelSpec, placement: Placement, report: Report) -> Engine:
    """Fetch a model's files, read them to where the placement says, and start its engine there.

    Args:
        spec: the model.
        placement: its devices, precision and cache size.
        report: told how far it is; the bytes of each stage begin at 0.

    Raises:
        DownloadError: the Hub did not give the files.
        CheckpointError: they do not hold the model that the catalog describes.
        LoadError: something that the placement needs is not installed.
        OutOfMemoryError: a device is full.
    """
    import_peft()
    with _told(spec, "fetching its files"):
        folder = _fetch(spec, report)
        encoder = PromptEncoder(spec, load_tokenizer(spec, folder))
    with _full_devices(spec, placement):
        with _told(spec, f"reading its weights ({placement.reason})"):
            model = load_model(spec, folder, placement, report)
        with _told(spec, "starting its engine"):
            size = spec.weights.bytes
            report(LoadProgress("start", size, size))
            return _start(model, encoder, placement)


def _fetch(spec: ModelSpec, report: Report) -> Path:
    report(LoadProgress("download", 0, spec.weights.bytes))
    return fetch(spec, MODEL_FILES, lambda done, total: report(LoadProgress("download", done, total)))


def _start(model: PreTrainedModel, encoder: PromptEncoder, placement: Placement) -> Engine:
    def start(tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> InProcessEngine:
        if placement.is_spread:
            return ShardedEngine(tree, encoder, options=ShardedOptions(kv_tokens=kv_tokens), weights=weights)
        graphs = None if recordable(placement.quantisation) else False
        options = BatchedOptions(kv_tokens=kv_tokens, cuda_graphs=graphs)
        return BatchedEngine(tree, encoder, options=options, weights=weights)

    return start(model, placement.kv_tokens, SharedWeights(model, encoder.spec.id, start))


@contextmanager
def _told(spec: ModelSpec, what: str) -> Iterator[None]:
    log.info("%s: %s", spec.name, what)
    begin = time.monotonic()
    yield
    log.info("%s: %s took %.1f s", spec.name, what.split(" (")[0], time.monotonic() - begin)


@contextmanager
def _full_devices(spec: ModelSpec, placement: Placement) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if not isinstance(error, OutOfMemoryError) and not is_memory(cause):
            raise
        raise OutOfMemoryError(_full(spec, placement, str(cause))) from cause


def _full(spec: ModelSpec, placement: Placement, message: str) -> str:
    gpu = re.search(r"GPU (\d+)", message)
    devices = [f"cuda:{gpu[1]}"] if gpu else [share.device for share in placement.shares]
    ways = ["Close other programs that use it"]
    if devices != ["cpu"] and placement.quantisation != "4-bit" and "4-bit" in spec.quantisations:
        install = "" if quantisation_available() else f"install bitsandbytes (`{INSTALL}`) and "
        ways.append(f"{install}start with --quantise 4-bit")
    ways += ["choose a smaller model", "use more GPUs" if devices != ["cpu"] else "add memory"]
    where = " or ".join(devices)
    return f"{where} is full: {spec.name} did not fit there with its cache. {', '.join(ways[:-1])}, or {ways[-1]}."

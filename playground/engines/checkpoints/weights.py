"""A model's weights, from safetensors files straight to their devices, in their dtype, and how far that has come.

Called by the loader. transformers builds the model on the meta device and reads one tensor after another to its place;
what is ours is the progress in bytes and the refusal of files that do not hold the whole model. Knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.logging import set_tqdm_hook

from model_registry.architectures.krutrim import KrutrimConfig, register
from model_registry.spec import ModelSpec
from playground.engines.checkpoints.attention import attention_for
from playground.engines.checkpoints.checkpoint import checkpoint_errors
from playground.engines.checkpoints.device_map import device_map
from playground.engines.checkpoints.quantisation import misshaped, quantisation_config
from playground.errors import CheckpointError
from playground.placement.plan import Placement
from playground.types import LoadProgress

Report = Callable[[LoadProgress], None]

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_LIMIT = 100_000_000
"""Bytes that a safetensors header may have, by the format's own rule."""

COUNTED_BAR = "Loading weights"
"""What transformers 5.23 calls the progress bar that goes over the tensors it puts to their place."""


def load_model(spec: ModelSpec, folder: Path, placement: Placement, report: Report) -> PreTrainedModel:
    """The weights in a folder, on the devices and in the precision of the placement; every tensor must be there.

    Raises:
        CheckpointError: the files do not hold the model that config.json describes.
        LoadError: the placement wants quantised weights, and bitsandbytes is not installed.
    """
    quantisation = quantisation_config(placement, spec.name)
    with checkpoint_errors(spec, folder):
        _require_readable_configs(folder)
        config = _config(spec, folder)
        with _progress_in_bytes(_tensor_bytes(folder), report):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, placement.dtype),
                device_map=_places(config, placement),
                attn_implementation=attention_for(placement),
                quantization_config=quantisation,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # so that they are told, and refused below
                output_loading_info=True,
            )
    model, info = loaded
    if quantisation is not None:
        info["mismatched_keys"] = {*info["mismatched_keys"], *misshaped(model)}
    _require_complete(spec, folder, info)
    return cast(PreTrainedModel, model.eval())


def _config(spec: ModelSpec, folder: Path) -> PreTrainedConfig:
    if spec.architecture == "krutrim":
        register()
        return KrutrimConfig.from_pretrained(folder)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _places(config: PreTrainedConfig, placement: Placement) -> Mapping[str, int | str]:
    if not placement.is_spread:
        return {"": placement.device}
    with torch.device("meta"):
        return device_map(
            AutoModelForCausalLM.from_config(config, dtype=getattr(torch, placement.dtype)), placement.shares
        )


def _require_readable_configs(folder: Path) -> None:
    """transformers builds a default model without config.json, and passes a broken generation_config.json by."""
    json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (path := folder / "generation_config.json").exists():
        json.loads(path.read_text(encoding="utf-8"))


def _tensor_bytes(folder: Path) -> dict[str, int]:
    """Bytes of every tensor in the files that transformers will read, by the tensor's name there."""
    if (folder / WHOLE).exists() or not (folder / INDEX).exists():
        files: Iterable[str] = [WHOLE]
    else:
        files = dict.fromkeys(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    sizes: dict[str, int] = {}
    for file in files:
        header = _safetensors_header(folder / file)
        spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        sizes |= {name: end - begin for name, (begin, end) in spans.items()}
    return sizes


def _safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(min(length, HEADER_LIMIT)))
        return header


@contextmanager
def _progress_in_bytes(sizes: Mapping[str, int], report: Report) -> Iterator[None]:
    """While this is open, transformers draws no bars and reports what it has put to its place.

    Leans on transformers 5.23: its bars are made through a hook that anyone may set, for the whole process, and the
    one over the weights is given, tensor by tensor, which names of the files it takes.
    """
    report(LoadProgress("weights", 0, sum(sizes.values())))

    def make_bar(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if options.get("desc") == COUNTED_BAR:
            return _counted(args[0], sizes, report)
        return factory(*args, **{**options, "disable": True})

    before = set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _counted(loads: Iterable[tuple[str, Any]], sizes: Mapping[str, int], report: Report) -> Iterator[tuple[str, Any]]:
    done, total = 0, sum(sizes.values())
    for name, load in loads:
        sources = {source for names in load.layer_targets.values() for source in names}
        yield name, load
        done += sum(sizes.get(source, 0) for source in sources)
        report(LoadProgress("weights", done, total))


def _require_complete(spec: ModelSpec, folder: Path, info: dict[str, Any]) -> None:
    """transformers fills a missing tensor with random numbers and goes on; a stranger's answer would come of it."""
    problems = [
        f"{len(info[kind])} {what}, such as {sorted(map(str, info[kind]))[0]}"
        for kind, what in (
            ("missing_keys", "tensors are missing"),
            ("unexpected_keys", "tensors belong to no layer"),
            ("mismatched_keys", "tensors have another shape than config.json says"),
        )
        if info.get(kind)
    ]
    if problems:
        raise CheckpointError(
            f"The checkpoint of {spec.name} in {folder} does not hold the model its config.json describes: "
            f"{'; '.join(problems)}. Download it again, or correct the catalog entry."
        )

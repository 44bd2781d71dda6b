"""The layers of a base model, from its config.json alone: the architecture is built without memory for weights.

Called where an adapter is inspected without its model being loaded. Never runs code from the model's folder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from model_registry.spec import ModelSpec
from playground.adapters.facts import BaseLayers
from playground.errors import CheckpointError


def base_layers(spec: ModelSpec, folder: Path) -> BaseLayers:
    """The layers of a catalog model whose config.json is in a folder.

    Raises:
        CheckpointError: config.json is missing, or describes no model that can be built here.
    """
    try:
        with torch.device("meta"):
            model = _empty_model(spec, folder)
    except Exception as error:  # transformers raises whatever it pleases at a stranger's config
        raise CheckpointError(
            f"{spec.name}: config.json in {folder} describes no model that can be built: {error}"
        ) from error
    return layers_of(model, spec.names, spec.weights.revision if spec.weights.hub else "")


def layers_of(model: PreTrainedModel, names: tuple[str, ...] = (), revision: str = "") -> BaseLayers:
    """The layers of a model, loaded or not; `names` and `revision` as in BaseLayers."""
    modules = {name: module for name, module in model.named_modules() if name}
    linear = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    return BaseLayers(
        linear={name: (module.out_features, module.in_features) for name, module in linear.items()},
        others=frozenset(set(modules) - set(linear)),
        head=next((name for name, module in linear.items() if module is head), ""),
        names=names,
        revision=revision,
    )


def _empty_model(spec: ModelSpec, folder: Path) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError("the file is missing")
    if spec.architecture == "krutrim":
        return KrutrimForCausalLM(KrutrimConfig.from_pretrained(folder))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return AutoModelForCausalLM.from_config(config, trust_remote_code=False)

"""Adapter views: a model with an adapter, in a module tree of its own, over the base's weights.

A view costs its adapter's weights and nothing else, and has an engine of its own, so adapters are never switched under
an answer. Made where a model is loaded. Knows no engine; `sharing` knows how trees share their weights.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from transformers import PreTrainedModel

from playground.adapters.facts import AdapterFacts
from playground.adapters.files import adapter_folder, open_inside, shown
from playground.adapters.header import WEIGHTS
from playground.adapters.sharing import copy_around, hooks_of, shared_copy
from playground.adapters.tensors import PREFIX
from playground.errors import AdapterError, OutOfMemoryError
from playground.types import MAX_ADAPTER_SCALE

NAME = "default"
HALVES = ("lora_A", "lora_B")
MISFIT = "The adapter was inspected for another model: choose it again for this one."


def view_of(base: PreTrainedModel, folder: Path, facts: AdapterFacts, *, scale: float = 1.0) -> PreTrainedModel:
    """The base with an adapter; the base itself stays as it is, and both may run at the same time.

    Args:
        base: as for `shared_copy`: a tree that nobody runs meanwhile.
        folder: the adapter's folder.
        facts: of its inspection, on this base's layers; the file must still be the one that was inspected.
        scale: the adapter's effect is multiplied by it, 0 to 2; at 0 the view answers as the base does, bit for bit.

    Raises:
        AdapterError: the file has changed or is gone, does not fit, or the base cannot share its weights.
        OutOfMemoryError: a device has no room for the adapter's weights.
    """
    _require_scale(scale)
    tensors = _read(folder, facts)
    view = shared_copy(base)
    _inject(view, facts)
    _fill(view, tensors)
    return _set_scale(view, scale)


def rescaled(view: PreTrainedModel, scale: float) -> PreTrainedModel:
    """The same view at another scale: it shares the adapter's weights too, so it costs no memory.

    Another tree rather than another number in this one, for two panels may want two scales at the same time, an answer
    that is being given must not change, and a recorded CUDA graph would go on with the number that it was made with.

    Args:
        view: a tree that nobody runs meanwhile.
        scale: of the adapter as it was trained, whatever the view's own is; 0 to 2.

    Raises:
        AdapterError: the scale is out of range.
    """
    _require_scale(scale)
    return _set_scale(shared_copy(view), scale)


def own_bytes(view: PreTrainedModel) -> Counter[str]:
    """Bytes of weights that a view takes beyond its base, by device name.

    Those of a rescaled view are the bytes of the view that it was made from: to be counted once.
    """
    sizes: Counter[str] = Counter()
    for layer in _layers(view).values():
        for half in HALVES:
            weight = _half(layer, half).weight
            sizes[str(weight.device)] += weight.nbytes
    return sizes


def _require_scale(scale: float) -> None:
    if not 0 <= scale <= MAX_ADAPTER_SCALE:
        raise AdapterError(f"An adapter's scale goes from 0 to {MAX_ADAPTER_SCALE:g}, but {scale:g} was asked for.")


def _read(folder: Path, facts: AdapterFacts) -> dict[str, Tensor]:
    """The tensors of the file that was inspected: what is hashed is what is loaded."""
    with open_inside(adapter_folder(folder), WEIGHTS) as file:
        # Asked first, so that not even the bytes of something huge are taken in.
        same_size = os.fstat(file.fileno()).st_size == facts.bytes
        content = file.read(facts.bytes) if same_size else b""
    if hashlib.sha256(content).hexdigest() != facts.digest:
        raise AdapterError(
            f"{WEIGHTS} in {shown(str(folder))} is no longer the file that was inspected: choose the adapter again."
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise AdapterError(f"{WEIGHTS} cannot be read: {shown(str(error))}.") from error


def _inject(view: PreTrainedModel, facts: AdapterFacts) -> None:
    """PEFT's layers in the view, their weights yet without memory.

    PEFT makes the first of each kind, and the others are copies, for it takes PEFT a second to make some hundred.
    """
    modules = dict(view.named_modules())
    firsts: dict[tuple[object, ...], str] = {}
    kinds = {name: _kind(modules.get(name), name, facts) for name in facts.target_modules}
    for name, kind in kinds.items():
        firsts.setdefault(kind, name)
    _inject_some(view, facts, tuple(firsts.values()))
    for name, kind in kinds.items():
        first = firsts[kind]
        if name != first:
            layer = copy_around(view.get_submodule(first), modules[first], modules[name])
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, layer)
    if set(_layers(view)) != set(facts.target_modules):
        raise AdapterError(MISFIT)


def _kind(base: nn.Module | None, name: str, facts: AdapterFacts) -> tuple[object, ...]:
    """Equal for layers of which one can be a copy of another."""
    if not isinstance(base, nn.Linear):
        raise AdapterError(MISFIT)
    rank, alpha = facts.rank_pattern.get(name, facts.r), facts.alpha_pattern.get(name, facts.lora_alpha)
    return type(base), base.in_features, base.out_features, rank, alpha


def _inject_some(view: PreTrainedModel, facts: AdapterFacts, names: tuple[str, ...]) -> None:
    ranks = {name: rank for name, rank in facts.rank_pattern.items() if name in names}
    alphas = {name: alpha for name, alpha in facts.alpha_pattern.items() if name in names}
    some = replace(facts, target_modules=names, rank_pattern=ranks, alpha_pattern=alphas)
    config = LoraConfig(**some.peft_fields())
    with _peft_errors(), torch.device("meta"):
        inject_adapter_in_model(config, view, NAME)
    view.eval()  # which PEFT's new layers are not


@contextmanager
def _peft_errors() -> Iterator[None]:
    """The one place where PEFT's errors become ours."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise AdapterError(f"PEFT cannot put this adapter on this model: {shown(str(error), 200)}.") from error


def _fill(view: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Puts the adapter's weights to their places; in the base's precision, for an answer's steps to be the base's."""
    for name, layer in _layers(view).items():
        device = _device(layer)
        for half in HALVES:
            place = _half(layer, half)
            weight = tensors.get(f"{PREFIX}{name}.{half}.weight")
            if weight is None or weight.shape != place.weight.shape:
                raise AdapterError(MISFIT)
            place.weight = nn.Parameter(_moved(weight, device, view.dtype), requires_grad=False)


def _moved(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    try:
        return weight.to(device, dtype)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{device} is full: the adapter's weights did not fit there. Close other adapters or models and try again."
        ) from error


def _device(layer: LoraLayer) -> torch.device:
    """Where a layer computes: for a weight that accelerate holds back, not where that lies."""
    base = layer.get_base_layer()
    computes = [hook.execution_device for hook in hooks_of(base) if getattr(hook, "execution_device", None) is not None]
    return torch.device(computes[0]) if computes else cast(Tensor, base.weight).device


def _set_scale(view: PreTrainedModel, scale: float) -> PreTrainedModel:
    for layer in _layers(view).values():
        layer.set_scale(NAME, scale)
        if layer.disable_adapters == (scale > 0):
            layer.enable_adapters(scale > 0)  # else 0 times an overflow in 16 bits would be NaN, and -0.0 become 0.0
            for half in HALVES:  # switching PEFT's layers on makes them trainable
                _half(layer, half).requires_grad_(False)
    return view


def _layers(view: PreTrainedModel) -> dict[str, LoraLayer]:
    return {name: module for name, module in view.named_modules() if isinstance(module, LoraLayer)}


def _half(layer: LoraLayer, half: str) -> nn.Linear:
    return cast(nn.Linear, getattr(layer, half)[NAME])

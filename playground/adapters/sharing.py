"""A second module tree over the same weights: its own modules, config and hooks, and not one tensor of its own.

Called by `views`, and before a model's engine starts, for the tree that its views are made from. Knows no adapter.
Leans on the inside of bitsandbytes 0.50 (quantised layers) and accelerate 1.15 (hooks), and imports neither.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from playground.errors import AdapterError

DISPATCHED = ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa")
"""Where accelerate puts functions on a model that it dispatched; copied or not, they move that model."""

WAYS = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
"""Where a class says how its objects are copied, besides `__deepcopy__`."""

SLOTS = frozenset(vars(nn.Module()))
"""What every module has, and no other module refers to: a dozen containers for hooks, nearly all of them empty."""

CONTAINERS = frozenset((dict, OrderedDict, set))
ATOMS = frozenset((type(None), bool, int, float, str, torch.dtype, torch.device))

M = TypeVar("M", bound=nn.Module)


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose every parameter and buffer lies in the model's own memory; none requires grad.

    All else is the copy's own: a forward pass writes to the config (transformers 5.23), to accelerate's hooks and to
    the states of 8-bit layers, which two threads must not share. Weights that are tied are tied in the copy.

    Args:
        model: loaded, quantised or not, on one device or dispatched by accelerate. Nobody may run it meanwhile, for the
            copy would keep what a forward pass sets for its own time: copy before it is served, or from a copy.

    Raises:
        AdapterError: it holds what cannot be shared.
    """
    _pack(model)
    try:
        copied = _copy(model, _memo(model))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise AdapterError(
            f"This model's weights cannot be shared with adapters: {error}. Use the model without an adapter."
        ) from error
    for name in DISPATCHED:
        vars(copied).pop(name, None)
    return copied


def copy_around(wrapper: nn.Module, inner: nn.Module, other: nn.Module) -> nn.Module:
    """A copy of a module with, in the place of one that it holds, another.

    What it holds without a weight, such as the dropout of an adapter, the copy shares: nobody runs one without the
    other. Parameters are copied, so it is cheap only before they get their memory.
    """
    weightless = (child for child in wrapper.children() if next(child.parameters(), None) is None)
    return _copy(wrapper, {**{id(child): child for child in weightless}, id(inner): other})


def hooks_of(module: nn.Module) -> Iterator[Any]:
    """accelerate's hooks on a module, one by one."""
    hook = vars(module).get("_hf_hook")
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


@torch.no_grad()
def _pack(model: nn.Module) -> None:
    """What a CPU with AVX-512 BF16 does to a 4-bit layer when it first runs: its weight is laid out anew.

    Done before the weight is shared: of two trees that each did it, the second would answer nonsense. `state_dict()`
    undoes it, so it is not for trees that share.
    """
    layer: Any
    for layer in model.modules():
        state = vars(layer).get("quant_state")
        if state is None or layer.weight.device.type != "cpu" or not layer.support_avx512bf16_for_cpu:
            continue
        if not getattr(state, "packing_format_for_cpu", False):
            layer(torch.zeros(1, layer.in_features, dtype=layer.compute_dtype))


def _copy(root: M, memo: dict[int, Any]) -> M:
    """What `copy.deepcopy` makes, five times as fast: a tree has thousands of modules, nearly all of them plain."""
    plain = [module for module in root.modules() if id(module) not in memo and _is_plain(type(module))]
    memo.update((id(module), type(module).__new__(type(module))) for module in plain)
    for module in plain:
        kept = module.__getstate__()
        memo[id(module)].__setstate__({name: _copy_value(name, value, memo) for name, value in kept.items()})
    return copy.deepcopy(root, memo)


def _is_plain(kind: type[nn.Module]) -> bool:
    return getattr(kind, "__deepcopy__", None) is None and all(getattr(kind, w) is getattr(nn.Module, w) for w in WAYS)


def _copy_value(name: str, value: Any, memo: dict[int, Any]) -> Any:
    if type(value) in ATOMS:
        return value
    if name in SLOTS and type(value) in CONTAINERS and not value:
        return type(value)()
    return copy.deepcopy(value, memo)


def _memo(model: nn.Module) -> dict[int, Any]:
    """What a copy is to hold in the place of objects that hold weights, by their ids."""
    memo: dict[int, Any] = {id(parameter): _twin(parameter) for parameter in model.parameters()}
    for module in model.modules():
        for shared in _shared(module):
            memo.setdefault(id(shared), shared)
    return memo


def _twin(parameter: nn.Parameter) -> nn.Parameter:
    """Another object over the same memory: PEFT freezes its tree's parameters, and 8-bit layers assign to theirs."""
    match type(parameter).__name__:
        case "Parameter":
            return nn.Parameter(parameter.detach(), requires_grad=False)
        case "Int8Params":
            scales: Any = parameter
            made: Any = type(parameter)
            same = {"has_fp16_weights": scales.has_fp16_weights, "CB": scales.CB, "SCB": scales.SCB}
            return made(parameter.data, requires_grad=False, **same)
        case "Params4bit":
            return copy.copy(parameter)
        case kind:
            raise ValueError(f"it has weights of the kind {kind}, which is not known here")


def _shared(module: nn.Module) -> Iterator[object]:
    """What the copy of a module holds as it is, besides the parameters."""
    kept = vars(module)
    state = kept.get("state")  # of an 8-bit layer: the object is the copy's own, the scales in it are not
    values = (*kept.values(), *module._buffers.values(), *(vars(state).values() if state else ()))
    yield from (value for value in values if isinstance(value, Tensor))
    if kept.get("quant_state") is not None:  # of a 4-bit layer: nobody writes to it, once packed
        yield kept["quant_state"]
    for hook in hooks_of(module):
        yield getattr(hook, "weights_map", None)  # where offloaded weights lie
        for resident in (getattr(hook, "tied_params_map", None) or {}).values():
            yield from resident.values()

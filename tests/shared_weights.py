"""What a model's tree holds, for tests of trees that share their weights: tensors in memory, objects within reach."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import is_fake
from transformers import PreTrainedModel

IDS = torch.arange(1, 13)[None]


@torch.inference_mode()
def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS).logits


def tensor_bytes() -> int:
    """Of all tensors that Python knows, wherever they are kept; memory that several share is counted once."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if not (tensor.is_meta or is_fake(tensor))]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def plain_name(name: str) -> str:
    """Of a parameter in a tree with an adapter, as it is called in the base."""
    return name.replace(".base_layer.", ".")


def addresses(model: nn.Module) -> dict[str, int]:
    """Where each parameter and buffer of the base lies; tied ones under each of their names."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {plain_name(name): tensor.data_ptr() for name, tensor in named if ".lora_" not in name}


def portrait(model: PreTrainedModel) -> dict[str, Any]:
    """All that must stay as it is while views of a model come and go."""
    modules = dict(model.named_modules())
    return {
        "modules": {name: id(module) for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "hooks": {name: [*module._forward_hooks, *module._forward_pre_hooks] for name, module in modules.items()},
        "forwards": {name: vars(module).get("forward") for name, module in modules.items()},
        "parameters": {name: (id(p), p.requires_grad, p.dtype, p.data_ptr()) for name, p in model.named_parameters()},
        "configs": {name: id(getattr(module, "config", None)) for name, module in modules.items()},
        "config": model.config.to_dict(),
        "generation_config": (id(model.generation_config), model.generation_config.to_dict()),
    }


def reach(root: object) -> Iterator[object]:
    """All objects that one holds, through containers, attributes, methods and what functions close over."""
    seen, waiting = set[int](), [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.BuiltinFunctionType):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, types.FunctionType):
            waiting.extend(cell.cell_contents for cell in thing.__closure__ or ())
        elif isinstance(thing, types.MethodType):
            waiting.append(thing.__self__)
        elif isinstance(thing, partial):
            waiting.extend((thing.func, *thing.args, thing.__dict__))
        else:
            waiting.extend(gc.get_referents(thing))


def with_peft(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model itself, with an adapter as PEFT puts it there, in the model's precision."""
    adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:  # on 8-bit layers PEFT takes float32
            parameter.data = parameter.data.to(model.dtype)
    return adapted

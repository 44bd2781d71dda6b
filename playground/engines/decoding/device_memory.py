"""What a model takes of the devices that it stands on, and on which of them token ids go in.

Counts tensors; asks `placement.devices` about the devices. Called by the in-process engines, which tell the pool and,
through it, the devices view.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from playground.placement.devices import find_device
from playground.types import DeviceUse


def weight_bytes(model: nn.Module) -> Counter[str]:
    """Bytes of parameters and buffers by device name; memory that several share is counted once.

    Weights that accelerate holds back in the CPU's memory (offloading) count there; those on disk count nowhere.
    """
    sizes: dict[tuple[str, int], int] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers(), _held_back(model)):
        if not tensor.is_meta:
            storage = tensor.untyped_storage()
            sizes[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    total: Counter[str] = Counter()
    for (device, _), size in sizes.items():
        total[device] += size
    return total


def _held_back(model: nn.Module) -> Iterator[Tensor]:
    """The tensors in memory behind accelerate's hooks (1.15), which put them on a device for one forward pass."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for single in getattr(hook, "hooks", [hook]):
            weights = getattr(single, "weights_map", None)
            loader = getattr(weights, "dataset", weights)
            held = getattr(loader, "state_dict", loader)
            if isinstance(held, Mapping):
                yield from held.values()


def device_use(weights: Mapping[str, int], cache: Mapping[str, tuple[int, int]]) -> tuple[DeviceUse, ...]:
    """Both by device name: bytes of weights, and bytes of KV cache (in use, reserved)."""
    uses = []
    for name in sorted({*weights, *cache}):
        device = find_device(name)
        used, reserved = cache.get(name, (0, 0))
        uses.append(DeviceUse(name, device.total_bytes, device.free_bytes, weights.get(name, 0), reserved, used))
    return tuple(uses)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids are looked up: of offloaded weights accelerate's hooks know it."""
    embeddings = cast(nn.Embedding, model.get_input_embeddings())
    for module in (embeddings, model):
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return embeddings.weight.device

"""From a placement's shares to the device map that transformers and accelerate load and dispatch a model by.

accelerate's own `infer_auto_device_map` makes the map, so that blocks stay whole and tied weights together; the shares
say how much each device may take. Called by the loader with the model on the meta device.

Where accelerate (1.15) needs leading:
- It fills devices in the order GPUs by number, CPU, disk. A plan may start at any GPU, so the numbers that it is given
  stand for the shares, and are changed into the devices afterwards.
- On the first GPU and on the CPU it keeps the size of the largest remaining layer free, for layers that come from
  further away. A plan has counted that already, so as much is added to what these may take.
- A device is given its blocks' exact size and about half a block: enough for the buffers that offloaded layers leave
  there, and not for one block more.
- Layers on "cpu" or "disk" behind GPUs are computed on the lowest-numbered GPU, where their KV cache is then as well.
  That takes GPUs as numbers in the map: of names, accelerate would choose one by their hash, another in each process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import compute_module_sizes
from transformers import PreTrainedModel

from playground.errors import PlacementError
from playground.placement.plan import Share

Place = int | str
"""The number of a GPU, "cpu" or "disk"."""


def device_map(model: PreTrainedModel, shares: Sequence[Share]) -> dict[str, Place]:
    """Which module goes where.

    Args:
        model: of the architecture and the sizes that will be loaded; the meta device is enough.
        shares: of the placement, in the order of the layers. "disk" may stand in for a device.

    Raises:
        PlacementError: the shares do not hold each of the model's layers once, in order, or these are of several sizes,
            which plans do not know.
    """
    places = [_place(share.device) for share in shares]
    if len(places) == 1:
        return {"": places[0]}
    blocks = block_names(model)
    stand_ins: list[Place] = [index if isinstance(place, int) else place for index, place in enumerate(places)]
    found: Mapping[str, Place] = infer_auto_device_map(
        model,
        max_memory=_limits(model, blocks, shares, stand_ins),
        no_split_module_classes=sorted(model._no_split_modules or ()),
        clean_result=False,
    )
    real = dict(zip(stand_ins, places, strict=True))
    result = {name: real.get(place, place) for name, place in found.items()}
    planned = [place for share, place in zip(shares, places, strict=True) for _ in _layers(share)]
    if [result.get(block) for block in blocks] != planned:
        raise PlacementError(
            f"The plan puts {len(planned)} layers on {', '.join(map(str, places))}, but the {len(blocks)} layers of "
            f"this model do not go there like that. Correct the dimensions in its catalog entry, or choose one device."
        )
    return result


def block_names(model: PreTrainedModel) -> list[str]:
    """The transformer blocks, which stay whole, in order: the model names their classes in `_no_split_modules`."""
    classes = set(model._no_split_modules or ())
    return [name for name, module in model.named_modules() if type(module).__name__ in classes]


def _place(device: str) -> Place:
    return device if device in ("cpu", "disk") else torch.device(device).index or 0


def _layers(share: Share) -> range:
    return range(share.first_layer, share.last_layer + 1)


def _limits(
    model: PreTrainedModel, blocks: Sequence[str], shares: Sequence[Share], stand_ins: Sequence[Place]
) -> dict[Place, int]:
    """Bytes that each device may take, such that it takes its share and no block more; the last takes what is left."""
    sizes = compute_module_sizes(model)
    before, behind = _outside_blocks(model, blocks)
    limits = {stand_ins[-1]: 2 * sizes[""]}
    for index, (share, stand_in) in enumerate(zip(shares[:-1], stand_ins[:-1], strict=True)):
        mine = [*blocks[share.first_layer : share.last_layer + 1], *(before if index == 0 else ())]
        next_block, *later = [sizes[name] for name in [*blocks[share.last_layer + 1 :], *behind]]
        # What accelerate keeps free while it looks at the last of these blocks, and at the first that is too much.
        kept, then_kept = (max(next_block, *later), max(later)) if index == 0 or stand_in == "cpu" else (0, 0)
        spare = (next_block + then_kept - kept) // 2
        limits[stand_in] = sum(sizes[name] for name in mine) + kept + spare
    return limits


def _outside_blocks(model: PreTrainedModel, blocks: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules without children that come before the blocks, and those that come after them."""
    names = [name for name, module in model.named_modules() if not any(module.children())]
    inside = tuple(f"{block}." for block in blocks)
    places = [index for index, name in enumerate(names) if name.startswith(inside)]
    if not places:
        raise PlacementError("This model does not say which of its modules are layers: it cannot be spread.")
    return names[: places[0]], [name for name in names[places[0] :] if not name.startswith(inside)]

"""Which attention a model runs with. A pure choice, and the question to the machine apart from it.

Asked by the loader. Never fetches a kernel from the Hub: only an installed flash-attn counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from model_registry.spec import Dtype
from playground.placement.plan import Placement

Attention = Literal["flash_attention_2", "sdpa"]

AMPERE = (8, 0)
"""The first compute capability that flash-attn 2 has kernels for."""


def choose_attention(
    dtype: Dtype, devices: Sequence[str], *, flash_installed: bool, capabilities: Sequence[tuple[int, int]]
) -> Attention:
    """Flash attention where it can run, else torch's own, which runs everywhere.

    Args:
        dtype: of the arithmetic; flash attention has 16 bits only.
        devices: all that hold a part of the model, by torch's names, the first layers' first. Layers that are
            offloaded to the CPU are computed on a GPU.
        flash_installed: whether the package is there.
        capabilities: compute capability (major, minor) of each GPU among the devices.
    """
    on_gpu = devices[0].startswith("cuda")
    capable = all(capability >= AMPERE for capability in capabilities)
    if flash_installed and on_gpu and capable and dtype != "float32":
        return "flash_attention_2"
    return "sdpa"


def attention_for(placement: Placement) -> Attention:
    """`choose_attention` for a placement on this machine."""
    devices = [share.device for share in placement.shares]
    capabilities = [torch.cuda.get_device_capability(device) for device in devices if device.startswith("cuda")]
    return choose_attention(
        placement.dtype, devices, flash_installed=is_flash_attn_2_available(), capabilities=capabilities
    )

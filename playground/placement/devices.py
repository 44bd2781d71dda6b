"""Which devices this machine has: the only file that asks torch about them.

Called by the composition root, and by the engines in this process for what is free now.
"""

from __future__ import annotations

import psutil
import torch

from playground.placement.containers import container_memory
from playground.placement.plan import Device


def find_devices() -> tuple[Device, ...]:
    """Every CUDA (or ROCm) device, then the CPU; sizes in bytes, free as of now."""
    return (*(_cuda(index) for index in range(torch.cuda.device_count())), _cpu())


def find_device(name: str) -> Device:
    """One device by torch's name for it ("cuda:1", "cpu"), as of now; cheap."""
    return _cpu() if name == "cpu" else _cuda(torch.device(name).index)


def _cuda(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    return Device(f"cuda:{index}", "cuda", total_bytes=total, free_bytes=free)


def _cpu() -> Device:
    memory = psutil.virtual_memory()
    total, free = container_memory(memory.total, memory.available)
    return Device("cpu", "cpu", total_bytes=total, free_bytes=free)

"""What a Space can be run on: `hardware.toml`, as values, and as devices for the planner.

Knows no profile and no model. Read by the profiles' check, the card and the command.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from playground.errors import SpaceError
from playground.placement.advice import card
from playground.placement.plan import Device

TABLE = Path(__file__).parent / "hardware.toml"
Size = Annotated[float, Field(gt=0)]


class Hardware(BaseModel):
    """One flavour. None is what the Hub's documentation does not tell.

    memory_gb, disk_gb: of 10^9 bytes. gpu_gib: of one GPU, as it reports it.
    zero_gpu: the GPU is lent for one call at a time. free: the Hub asks no money for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vcpus: Annotated[int, Field(gt=0)] | None = None
    memory_gb: Size | None = None
    disk_gb: Size | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_gib: Size | None = None
    zero_gpu: bool = False
    free: bool = False
    source: str

    @property
    def devices(self) -> tuple[Device, ...]:
        """As the planner wants them: the GPUs, then the CPU where its memory is known."""
        gpus = tuple(card(f"cuda:{index}", self.gpu_gib) for index in range(self.gpus) if self.gpu_gib)
        if self.memory_gb is None:
            return gpus
        size = int(self.memory_gb * 1e9)
        return (*gpus, Device("cpu", "cpu", size, size))

    def __str__(self) -> str:
        """Such as "4 GPUs of 22.5 GiB, 48 vCPUs, 186 GB"."""
        gpus = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''} of {self.gpu_gib:g} GiB" if self.gpus else ""
        cpus = f"{self.vcpus} vCPUs" if self.vcpus else ""
        memory = f"{self.memory_gb:g} GB" if self.memory_gb else ""
        return ", ".join(filter(None, (gpus, cpus, memory)))


@cache
def flavours() -> dict[str, Hardware]:
    """All that are known, by name."""
    return TypeAdapter(dict[str, Hardware]).validate_python(tomllib.loads(TABLE.read_text("utf-8")))


def hardware(flavour: str) -> Hardware:
    """What is known of a flavour.

    Raises:
        SpaceError: nothing; the sentence names those that are known.
    """
    try:
        return flavours()[flavour]
    except KeyError:
        raise SpaceError(
            f"Nothing is known here of the hardware {flavour!r}, only of {', '.join(flavours())}."
        ) from None

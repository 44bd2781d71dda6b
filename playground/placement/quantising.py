"""Whether weights in 8 or 4 bits can be loaded here, and how to get there: bitsandbytes is an optional extra.

Asked by the composition root, the command and the loader; the planner is told the answer in its options. Imports
neither torch nor bitsandbytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from playground.errors import PlacementError
from playground.placement.plan import Device, PlanOptions

INSTALL = "pip install bitsandbytes==0.50.2"


def quantisation_available() -> bool:
    """Whether bitsandbytes is installed; cheap, and imports nothing."""
    return importlib.util.find_spec("bitsandbytes") is not None


def check_quantisation(options: PlanOptions, devices: Sequence[Device]) -> None:
    """Before anything is downloaded. Without GPUs nothing is quantised, and so nothing is missing.

    Raises:
        PlacementError: 8 or 4 bits were asked for, and bitsandbytes is not installed.
    """
    asked, on_gpus = options.quantisation, any(device.kind == "cuda" for device in devices)
    if asked in ("8-bit", "4-bit") and on_gpus and not options.can_quantise:
        raise PlacementError(
            f"--quantise {asked} needs bitsandbytes, which is not installed: install it with `{INSTALL}` and start "
            "again, or start with --quantise none."
        )

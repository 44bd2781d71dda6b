"""What a grant of ZeroGPU has room for, and what may be asked of the placement there. Imports no torch.

Called by the start of the engines, and by whoever checks a Space before it is one.
"""

from __future__ import annotations

from playground.errors import PlacementError
from playground.placement.plan import Device, PlanOptions, QuantisationChoice

LARGE_BYTES = 48_000_000_000
"""What a grant of the size "large" has of its card: half of an RTX PRO 6000."""

ADAPTERS_BYTES = 3_000_000_000
"""Left free there for adapters, and for the caches of the engines that run with them."""

GRANT = Device("cuda:0", "cuda", total_bytes=LARGE_BYTES, free_bytes=LARGE_BYTES - ADAPTERS_BYTES)
"""The device that models are planned for: what a grant will have, which is not here yet."""


def grant_options(contexts: int = 4, quantise: QuantisationChoice = "auto", offload: bool = False) -> PlanOptions:
    """What is asked of the placement, from the command line's options.

    Raises:
        PlacementError: they ask for what a grant cannot have.
    """
    if quantise in ("8-bit", "4-bit") or offload:
        raise PlacementError(
            "On ZeroGPU weights are neither quantised nor offloaded: start without --quantise and --offload."
        )
    return PlanOptions(contexts, "none", can_quantise=False, strict=True)

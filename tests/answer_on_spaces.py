"""Turns of the two stand-ins under the decorator of `spaces`; prints what came of them, as JSON. Run by a test."""

from __future__ import annotations

from spaces_on_the_cpu import import_spaces

GRANTS = import_spaces()  # before anything else

import asyncio  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

from grant_room import ENDLESS, MODELS, Listener, both, library, registry  # noqa: E402

from playground.engines.zero_gpu.capacity import GRANT, grant_options  # noqa: E402
from playground.engines.zero_gpu.decorator import gpu_decorator  # noqa: E402
from playground.engines.zero_gpu.pool import ZeroGpuPool  # noqa: E402
from playground.engines.zero_gpu.start import zero_gpu_pool  # noqa: E402
from playground.errors import PlaygroundError  # noqa: E402


def main() -> None:
    decorate = gpu_decorator("on")
    pool = zero_gpu_pool(registry(), MODELS, GRANT, grant_options(), decorate, library())
    import spaces.zero.torch

    spaces.zero.torch.pack()  # as at the launch of the page, after which nobody here may touch a tensor
    asyncio.run(use(pool))


async def use(pool: ZeroGpuPool) -> None:
    told: dict[str, Any] = {}
    for GRANTS.idle in (False, True):
        answers = [await listener.done() for listener in asked(pool, f"turn {GRANTS.idle}")]
        await ended(pool)
        told[f"idle {GRANTS.idle}"] = {"answers": answers, "calls": GRANTS.names()}
    panels = asked(pool, "stopped", **ENDLESS)
    for panel in panels:
        await panel.speaks()
    for panel in panels:
        await panel.go_away()
    await ended(pool)
    told["stopped"] = GRANTS.names()
    GRANTS.wait_s = 720
    try:
        await asked(pool, "refused")[0].done()
    except PlaygroundError as error:
        told["refused"] = str(error)
    await pool.close()
    json.dump(told, sys.stdout)


def asked(pool: ZeroGpuPool, turn_id: str, **sampling: Any) -> list[Listener]:
    """The plain models, and one of them with an adapter."""
    requests = both(turn_id, **sampling)
    adapter = library().check(registry().get("demo-kullm3"), "kullm3-casual").use()
    other = requests[1].model_copy(update={"adapter": adapter, "request_id": f"{turn_id} adapted"})
    pool.expect([*requests, other])
    return [Listener(pool, request) for request in (*requests, other)]


async def ended(pool: ZeroGpuPool) -> None:
    for grant in [*pool._running]:
        await asyncio.to_thread(grant.ended.wait)


if __name__ == "__main__":
    main()

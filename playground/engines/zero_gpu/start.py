"""The pool of a Space with ZeroGPU, ready to answer: models and adapters placed, the task decorated.

Called by the composition root, before the page is built. Knows no page.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.elsewhere import Elsewhere
from playground.engines.pooling.reading import Adapters
from playground.engines.zero_gpu.decorator import Decorate
from playground.engines.zero_gpu.duration import Costs
from playground.engines.zero_gpu.place import place
from playground.engines.zero_gpu.pool import ZeroGpuPool
from playground.engines.zero_gpu.worker import Crew
from playground.errors import PlaygroundError
from playground.placement.plan import Device, PlanOptions

log = logging.getLogger(__name__)


def zero_gpu_pool(
    registry: Registry,
    models: Sequence[str],
    device: Device,
    options: PlanOptions,
    decorate: Decorate,
    adapters: Adapters | None = None,
    elsewhere: Elsewhere | None = None,
) -> ZeroGpuPool:
    """Takes as long as reading all weights does, and downloading them where they are not here.

    Args:
        registry: the catalog.
        models: ids or aliases of those that will answer; those that a server of the catalog has are not read.
        device: what a grant has.
        options: what is asked of the placement, as `capacity` allows it.
        decorate: gives the task its GPU.
        adapters: those that a model's menu offers are put beside it.
        elsewhere: which servers may be asked.

    Raises:
        PlaygroundError: a model is unknown, does not fit, or cannot be read.
    """
    elsewhere = elsewhere or Elsewhere(registry)
    here = [registry.get(model) for model in models if not elsewhere.servers_of(model)]
    specs = list({spec.id: spec for spec in here}.values())
    placed = place(specs, device, options, lambda spec: offered(spec, adapters))
    costs = Costs(
        weights={spec.id: placed[spec.id].placement.weight_bytes for spec in specs},
        contexts={spec.id: spec.context_length for spec in specs},
    )
    task = decorate(Crew(placed).answer, costs)
    placements = {model_id: one.placement for model_id, one in placed.items()}
    return ZeroGpuPool(registry, placements, device, task, adapters, elsewhere)


def offered(spec: ModelSpec, adapters: Adapters | None) -> Iterator[CheckedAdapter]:
    """What the menu offers and can be had; whoever chooses another is told why it cannot."""
    if adapters is None:
        return
    for choice in adapters.choices(spec):
        try:
            yield adapters.check(spec, choice.id)
        except PlaygroundError as error:
            log.warning("%s with %s: %s", spec.name, choice.name, error)

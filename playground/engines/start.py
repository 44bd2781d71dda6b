"""The engines as the settings want them: a process each, or in grants of a Space's ZeroGPU.

In two steps, for each kind has something that must come before all else is imported. Called by the composition root,
whose process shall import no torch where it can do without. Knows no page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from playground.settings import Settings

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from playground.adapters.known_layers import FindLayers
    from playground.adapters.library import AdapterLibrary
    from playground.engines.elsewhere import Elsewhere
    from playground.engines.pooling.protocol import Pool
    from playground.engines.zero_gpu.decorator import Decorate

Start = Callable[["Registry"], tuple["Pool", tuple[str, ...]]]
"""The pool, and the models of the first panels. Raises PlaygroundError."""


def prepare_engines(settings: Settings) -> Start:
    """What must come first, before gradio and torch are imported; returns at once."""
    if settings.zero_gpu != "off":
        from playground.engines.zero_gpu.decorator import gpu_decorator

        return partial(_in_grants, settings, gpu_decorator(settings.zero_gpu))
    from playground.engines.processes.child_process import prepare

    prepare()  # imports torch and transformers in another process, while this one imports gradio
    return partial(_in_processes, settings)


def _in_processes(settings: Settings, registry: Registry) -> tuple[Pool, tuple[str, ...]]:
    from playground.adapters.known_layers import find_layers
    from playground.engines.pool import EnginePool
    from playground.engines.processes.child_process import in_child
    from playground.engines.processes.worker import list_devices
    from playground.placement.defaults import default_models
    from playground.placement.plan import PlanOptions
    from playground.placement.quantising import check_quantisation, quantisation_available

    devices = in_child(list_devices)
    options = PlanOptions(settings.contexts, settings.quantise, settings.offload, quantisation_available())
    check_quantisation(options, devices)
    adapters = _library(settings, registry, lambda spec: in_child(find_layers, spec))
    models = settings.models or default_models(registry, devices, options)
    pool = EnginePool(
        registry,
        devices,
        options,
        adapters=adapters,
        elsewhere=_elsewhere(settings, registry),
        offered=_offered(settings, registry, models) if settings.for_strangers else None,
    )
    return pool, models


def _in_grants(settings: Settings, decorate: Decorate, registry: Registry) -> tuple[Pool, tuple[str, ...]]:
    from playground.adapters.known_layers import find_layers
    from playground.engines.zero_gpu.capacity import GRANT, grant_options
    from playground.engines.zero_gpu.start import zero_gpu_pool
    from playground.placement.defaults import default_models
    from playground.placement.devices import find_device

    options = grant_options(settings.contexts, settings.quantise, settings.offload)
    device = find_device("cpu") if settings.zero_gpu == "rehearse" else GRANT
    models = settings.models or default_models(registry, [device], options)
    adapters = _library(settings, registry, find_layers)
    elsewhere = _elsewhere(settings, registry)
    return zero_gpu_pool(registry, models, device, options, decorate, adapters, elsewhere), models


def _offered(settings: Settings, registry: Registry, models: Sequence[str]) -> frozenset[str]:
    """The models that strangers may have loaded: those of the first panels, and those of the operator's own files."""
    from model_registry.catalog_file import read_catalog_file

    own = {read_catalog_file(path).id for path in settings.catalogs}
    return frozenset({registry.get(model).id for model in models} | {spec.id for spec in registry if spec.id in own})


def _library(settings: Settings, registry: Registry, layers: FindLayers) -> AdapterLibrary:
    from playground.adapters.fetch import AdapterStore
    from playground.adapters.known_layers import KnownLayers
    from playground.adapters.library import AdapterLibrary

    store = AdapterStore(settings.adapter_store)
    return AdapterLibrary(
        registry,
        settings.adapters,
        store,
        KnownLayers(layers),
        typed_folders=settings.typed_folders,
        typed_hub=not settings.for_strangers,
    )


def _elsewhere(settings: Settings, registry: Registry) -> Elsewhere:
    from playground.engines.elsewhere import Elsewhere

    return Elsewhere(registry, settings.endpoints, settings.any_endpoint)

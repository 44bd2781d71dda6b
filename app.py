"""The composition root: settings, registry, devices, adapters, engine pool, page, in this order. No logic of its own.

Everything is imported inside `main`: the process of each engine reads this file too, and wants none of it.
"""

from __future__ import annotations

import signal
import sys

from playground.errors import PlaygroundError


def main() -> None:
    from playground.engines.processes.child_process import in_child, prepare
    from playground.log import configure_log
    from playground.settings import Settings

    configure_log()
    settings = Settings.read()
    prepare()  # imports torch and transformers in another process, while this one imports gradio

    from model_registry.registry import Registry
    from playground.adapters.fetch import AdapterStore
    from playground.adapters.known_layers import KnownLayers, find_layers
    from playground.adapters.library import AdapterLibrary
    from playground.engines.elsewhere import Elsewhere
    from playground.engines.pool import EnginePool
    from playground.engines.processes.worker import list_devices
    from playground.placement.defaults import default_models
    from playground.placement.plan import PlanOptions
    from playground.placement.quantising import check_quantisation, quantisation_available
    from playground.ui.build import build, launch_arguments
    from playground.ui.serve import serve

    registry = Registry.load(*settings.catalogs)
    devices = in_child(list_devices)
    options = PlanOptions(settings.contexts, settings.quantise, settings.offload, quantisation_available())
    check_quantisation(options, devices)
    adapters = AdapterLibrary(
        registry,
        settings.adapters,
        AdapterStore(settings.adapter_store),
        KnownLayers(lambda spec: in_child(find_layers, spec)),
        typed_folders=settings.typed_folders,
    )
    elsewhere = Elsewhere(registry, settings.endpoints, settings.any_endpoint)
    pool = EnginePool(registry, devices, options, adapters=adapters, elsewhere=elsewhere)
    models = settings.models or default_models(registry, devices, options)
    page = build(registry, pool, models, settings)
    serve(page, pool, models, launch_arguments(settings))


if __name__ == "__main__":
    # Until there is a page, whose server ends everything in order, Ctrl+C ends the process on the spot.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        main()
    except PlaygroundError as error:
        sys.exit(f"app.py: {error}")

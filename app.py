"""The composition root: settings, registry, engines, page, in this order. No logic of its own.

Everything is imported inside `main`: the process of each engine reads this file too, and wants none of it.
"""

from __future__ import annotations

import signal
import sys
from functools import partial

from playground.errors import PlaygroundError


def main() -> None:
    from playground.engines.start import prepare_engines
    from playground.log import configure_log, shorten_stderr
    from playground.settings import Settings

    configure_log()
    shorten_stderr()
    settings = Settings.read()
    start = prepare_engines(settings)  # before gradio is imported

    from model_registry.registry import Registry
    from playground.ui.build import build, launch_arguments
    from playground.ui.serve import serve

    registry = Registry.load(*settings.catalogs)
    pool, models = start(registry)
    page = partial(build, registry, pool, models, settings)
    serve(page, pool, models, launch_arguments(settings))


if __name__ == "__main__":
    # Until there is a page, whose server ends everything in order, Ctrl+C ends the process on the spot.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        main()
    except PlaygroundError as error:
        sys.exit(f"app.py: {error}")

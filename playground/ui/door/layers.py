"""Which layers a page has, from the outermost to the innermost. Called by `build` for its launch arguments."""

from __future__ import annotations

from starlette.middleware import Middleware

from playground.settings import Settings
from playground.ui.door.arrivals import Arrivals
from playground.ui.door.hosts import OwnNames
from playground.ui.door.leaving import Leaving
from playground.ui.door.shield import Shield


def layers(settings: Settings) -> list[Middleware]:
    own_names = [Middleware(OwnNames)] if settings.own_names_only else []
    arrivals = Middleware(Arrivals, limits=settings.limits, proxies=settings.proxies)
    return [*own_names, Middleware(Shield), arrivals, Middleware(Leaving)]

"""The events of the boxes "Runs on": which component triggers which handler, with what, to where.

Knows the components and the handlers, decides nothing. Called by `build`.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground.ui.adapters import AdapterHandlers
from playground.ui.elsewhere.handlers import PlaceHandlers
from playground.ui.event_kinds import NOW, QUIET, STREAMS_PER_PANEL
from playground.ui.events import Controls, menus
from playground.ui.handlers import Handlers
from playground.ui.lens.handlers import LensHandlers
from playground.ui.panel import Panel
from playground.ui.prompt_bar import PromptBar


def wire_places(
    own: PlaceHandlers,
    adapters: AdapterHandlers,
    handlers: Handlers,
    lens: LensHandlers,
    panels: list[Panel],
    bar: PromptBar,
    controls: Controls,
) -> None:
    """A server is asked in an event of its own; whatever changes the place is then told to the rest of the panel."""
    everyone = [panel.adapter.chosen for panel in panels]
    for panel in panels:
        place, adapter = panel.place, panel.adapter
        spot = [panel.model, place.state, place.choosing, place.kept]
        named = [place.url, place.key, place.model, place.same_model, *spot]
        asks: dict[str, Any] = {
            "outputs": place.outputs,
            "concurrency_id": f"place-{panel.index}",
            "concurrency_limit": STREAMS_PER_PANEL,
            "trigger_mode": "multiple",
            **QUIET,
        }
        its_adapter = [panel.model, place.state, adapter.chosen, adapter.choosing, *everyone]
        # Not `change`: where an event of that kind paints a box with others in it, Gradio sends it again without end.
        panel.model.input(own.follow, spot, place.outputs, **NOW).then(
            adapters.follow_place, its_adapter, adapter.outputs, **NOW
        )
        place.list_models.click(own.list_models, named, **asks)
        for moved in (
            place.where.input(own.choose, [place.where, *spot], place.outputs, **NOW),
            place.served.input(own.choose_served, [place.served, *spot], place.outputs, **NOW),
            gr.on([place.use.click, place.key.submit], own.use_named, named, **asks),
            place.forget.click(own.forget, spot, place.outputs, **NOW),
        ):
            moved.then(adapters.follow_place, its_adapter, adapter.outputs, **NOW)
            moved.then(handlers.refresh_menus, *menus(panels), **NOW)
            moved.then(lens.looks, [*controls.typing(bar), *panel.glance], panel.lens.view, **NOW)

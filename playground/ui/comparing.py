"""Compare with base: one click puts the plain model of a panel into the next one.

Kept apart, for it is the one event that lets a panel change another. Knows no stream. Wired by `events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from playground.types import half_character
from playground.ui import view
from playground.ui.adapter_state import Choosing, PanelAdapter
from playground.ui.adapters import NOTHING, AdapterHandlers
from playground.ui.elsewhere.box import NAMES
from playground.ui.elsewhere.handlers import PlaceHandlers
from playground.ui.elsewhere.place import PanelPlace
from playground.ui.handlers import buttons, groups
from playground.ui.pace import StreamControl
from playground.ui.panel import about_model, system_properties


class Neighbour(NamedTuple):
    """`Panel.neighbour`: what must be known of a panel before another model may come into it."""

    control: StreamControl
    chosen: PanelAdapter
    choosing: Choosing


@dataclass(frozen=True)
class Comparing:
    adapters: AdapterHandlers

    async def compare(self, index: int, shown: Sequence[bool], model_id: str, system: str, *rest: Any) -> list[Any]:
        """Give the next panel this one's model and system prompt, and no adapter; its conversation stays.

        Inputs: which panels are shown, the panel's model and system prompt, the Neighbour of each of `candidates`.
        Outputs: hint, which panels are shown, all remove buttons, the add button, then of each candidate: column,
        model, system prompt, default, about line, adapter and place.
        """
        places = candidates(index, len(shown))
        neighbours = dict(zip(places, groups(Neighbour, rest), strict=True))
        target = next_panel(index, shown)
        nothing = [gr.skip()] * (len(NOTHING) + len(NAMES) + 5)
        if sentence := _obstacle(target, neighbours[target], system):
            return [view.hint(sentence), *[gr.skip()] * (len(shown) + 2), *nothing * len(places)]
        panels = [each.chosen for each in neighbours.values()]
        plain = [gr.Column(visible=True), *self._plain(model_id, system, neighbours[target], panels)]
        now_shown = [is_shown or place == target for place, is_shown in enumerate(shown)]
        changes = [value for place in places for value in (plain if place == target else nothing)]
        return ["", now_shown, *buttons(now_shown), *changes]

    def _plain(self, model_id: str, system: str, neighbour: Neighbour, panels: Sequence[PanelAdapter]) -> list[Any]:
        spec = self.adapters.registry.get(model_id)
        neighbour.choosing.begin()
        return [
            gr.update(value=spec.id),
            gr.update(value=system, **system_properties(spec)),
            spec.prompt.default_system,
            about_model(spec, self.adapters.pool.status(spec.id)),
            *self.adapters.reset(spec.id, neighbour.chosen, panels),
            *PlaceHandlers(self.adapters.pool).put(PanelPlace(spec.id)),  # beside the adapter, which runs here
        ]


def candidates(index: int, count: int) -> list[int]:
    """What `next_panel` may say. No more than these are outputs of the event: Gradio's page goes over everything that
    was ever one at each step of every answer."""
    return [index + 1] if index + 1 < count else [*range(index)]


def next_panel(index: int, shown: Sequence[bool]) -> int:
    """The slot to the right, shown or not; of the last one, the first that is hidden, else the one to its left."""
    if index + 1 < len(shown):
        return index + 1
    return shown.index(False) if False in shown else index - 1


def _obstacle(place: int, neighbour: Neighbour, system: str) -> str:
    """Why the next panel cannot take it, "" if it can. The system prompt goes to the browser, so it must be whole."""
    if neighbour.control.is_open:
        return f"Panel {place + 1} is still answering: wait for it, or press Stop, then compare again."
    half = half_character(system)
    return f"System prompt: {half}." if half else ""

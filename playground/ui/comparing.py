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
from playground.ui.handlers import groups, layout
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

        Inputs: which panels are shown, the panel's model and system prompt, the Neighbour of every panel.
        Outputs: hint, then as `layout`, then model, system prompt, default, about line and adapter of every panel.
        """
        neighbours = groups(Neighbour, rest)
        next_one = next_panel(index, shown)
        size = len(NOTHING) + 4
        if sentence := _obstacle(next_one, neighbours[next_one], system):
            return [view.hint(sentence), *[gr.skip()] * (len(layout(shown)) + size * len(shown))]
        values = [[gr.skip()] * size for _ in shown]
        values[next_one] = self._plain(model_id, system, neighbours[next_one], [each.chosen for each in neighbours])
        now_shown = [is_shown or place == next_one for place, is_shown in enumerate(shown)]
        return ["", *layout(now_shown), *(value for panel in values for value in panel)]

    def _plain(self, model_id: str, system: str, neighbour: Neighbour, panels: Sequence[PanelAdapter]) -> list[Any]:
        spec = self.adapters.registry.get(model_id)
        neighbour.choosing.begin()
        return [
            gr.update(value=spec.id),
            gr.update(value=system, **system_properties(spec)),
            spec.prompt.default_system,
            about_model(spec, self.adapters.pool.status(spec.id)),
            *self.adapters.reset(spec.id, neighbour.chosen, panels),
        ]


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

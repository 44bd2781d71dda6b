"""A panel's adapter: its menu, the field for one that no menu offers, its scale, and the comparison with the base.

Choosing is checking: what was in use stays so until the next one is accepted. Knows no stream; the markup is
`adapter_view`'s. Drawn by `panel`, wired by `events`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from model_registry.registry import Registry
from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.errors import PlaygroundError
from playground.types import MAX_ADAPTER_SCALE, half_character
from playground.ui import adapter_view, view
from playground.ui.adapter_state import ELSEWHERE, NO_ADAPTER, Choosing, PanelAdapter, menu, typed_for
from playground.ui.elsewhere.place import PanelPlace, place_of

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

NAME_ONE = "Name an adapter first: owner/name, owner/name@revision, or a folder."
LONGEST = 1_000
"""Characters of an adapter's name or folder."""

ON_SERVER = [("Adapters: under Runs on", NO_ADAPTER)]
"""The menu while a server answers."""

UNEXPECTED = "Unexpected error while inspecting the adapter: the log has the details."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdapterControls:
    """`chosen` and `choosing` are its values of `adapter_state`; `tools` holds what is shown with an adapter alone."""

    chosen: gr.State
    choosing: gr.State
    menu: gr.Dropdown
    field: gr.Row
    text: gr.Textbox
    use: gr.Button
    cancel: gr.Button
    notice: gr.HTML
    about: gr.HTML
    tools: gr.Row
    scale: gr.Slider
    compare: gr.Button

    @property
    def outputs(self) -> list[gr.components.Component | gr.Row]:
        """What a choice changes."""
        return [getattr(self, name) for name in NAMES]


NAMES = ("menu", "chosen", "field", "text", "notice", "about", "tools", "scale")
"""What a choice changes, by the names of `AdapterControls`."""

NOTHING = [gr.skip()] * len(NAMES)
"""For `AdapterControls.outputs`."""


class Place(NamedTuple):
    """Where a choice is made: the panel's model, its adapter and its `Choosing`."""

    model_id: str
    chosen: PanelAdapter
    choosing: Choosing


def draw_adapter_menu(index: int, offered: Sequence[AdapterChoice], on_server: bool) -> gr.Dropdown:
    """`index` counts from 0. Apart from the other controls, for it stands beside the model's menu."""
    return gr.Dropdown(
        ON_SERVER if on_server else menu(offered, ()),
        value=NO_ADAPTER,
        interactive=not on_server,
        label=f"Adapter of panel {index + 1}",
        show_label=False,
        container=False,
        filterable=False,
        scale=1,
        min_width=120,
        elem_classes="adapter",
    )


def draw_adapter(index: int, dropdown: gr.Dropdown) -> AdapterControls:
    chosen, choosing = gr.State(PanelAdapter()), gr.State(Choosing())
    with gr.Row(visible=False, elem_classes="adapter-field") as field:
        text = gr.Textbox(
            label=f"Adapter of panel {index + 1}, from the Hub or a folder",
            placeholder="owner/name, owner/name@revision, or a folder",
            show_label=False,
            container=False,
            max_lines=1,
            elem_classes="adapter-text",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocapitalize="off", autocorrect="off"),
        )
        use = gr.Button("Use", size="sm", scale=0, min_width=0, elem_classes="use-adapter")
        cancel = gr.Button("Cancel", size="sm", scale=0, min_width=0, elem_classes="cancel-adapter")
    notice, about = gr.HTML(elem_classes="adapter-notice"), gr.HTML(elem_classes="adapter-about")
    with gr.Row(visible=False, elem_classes="adapter-tools") as tools:
        scale = gr.Slider(
            0,
            MAX_ADAPTER_SCALE,
            1,
            step=0.05,
            label=f"Adapter scale of panel {index + 1}",
            container=False,
            elem_classes="adapter-scale",
        )
        compare = gr.Button("Compare with base", size="sm", scale=0, min_width=0, elem_classes="compare-with-base")
    return AdapterControls(
        chosen, choosing, dropdown, field, text, use, cancel, notice, about, tools, scale, compare
    )  # fmt: skip


@dataclass(frozen=True)
class AdapterHandlers:
    registry: Registry
    pool: Pool

    async def choose(self, value: str, *rest: Any) -> AsyncIterator[list[Any]]:
        """Put what the menu says in use, once it is accepted.

        Inputs: the menu, the panel's Place, every panel's adapter. Outputs: `AdapterControls.outputs`.
        """
        place, panels = Place(*rest[:3]), rest[3:]
        ticket = place.choosing.begin()
        if value == NO_ADAPTER:
            yield self.reset(place.model_id, place.chosen, panels)
        elif value == ELSEWHERE:
            yield _paint(field=gr.Row(visible=True), notice="")
        else:
            closed = gr.Row(visible=False)
            yield _paint(field=closed, notice=adapter_view.inspecting(self._label(value, place, panels), place.chosen))
            yield await self._outcome(ticket, value, place, panels)

    async def use_typed(self, text: str, *rest: Any) -> AsyncIterator[list[Any]]:
        """Put what is typed in use, once it is accepted; a refused one stays in its field.

        Inputs: the text field, the panel's Place, every panel's adapter. Outputs: `AdapterControls.outputs`.
        """
        place, panels, text = Place(*rest[:3]), rest[3:], text.strip()
        ticket = place.choosing.begin()
        if sentence := _fault(text):
            yield _paint(notice=adapter_view.refusal(sentence, place.chosen))
            return
        yield _paint(notice=adapter_view.inspecting(text, place.chosen))
        yield await self._outcome(ticket, text, place, panels)

    async def cancel(self, chosen: PanelAdapter, choosing: Choosing) -> list[Any]:
        """Close the field and give a check up; what is in use stays.

        Inputs: the panel's adapter, its Choosing. Outputs: `AdapterControls.outputs`.
        """
        choosing.begin()
        return _paint(menu=gr.update(value=chosen.value), field=gr.Row(visible=False), notice="")

    async def change_model(self, *rest: Any) -> list[Any]:
        """Go back to no adapter. Inputs: the panel's Place, every panel's adapter. Outputs: as `cancel`."""
        place, panels = Place(*rest[:3]), rest[3:]
        place.choosing.begin()
        on_server = bool(self.pool.elsewhere.servers_of(place.model_id))
        return self.reset(place.model_id, place.chosen, panels, on_server)

    async def follow_place(self, model_id: str, place: PanelPlace, *rest: Any) -> list[Any]:
        """The menu rests while a server answers, whose adapters are models of its own.

        Inputs: model, the panel's place, its adapter and Choosing, every panel's adapter. Outputs: as `cancel`.
        """
        at, panels = Place(model_id, *rest[:2]), rest[2:]
        if place_of(place, model_id, self.pool.elsewhere).endpoint:
            at.choosing.begin()
            return self.reset(model_id, at.chosen, panels, on_server=True)
        choices = self._menu(model_id, panels)
        return _paint(menu=gr.update(choices=choices, value=at.chosen.value, interactive=True))

    async def refresh_menu(self, model_id: str, *panels: PanelAdapter) -> Any:
        """Inputs: the panel's model, every panel's adapter. Outputs: the menu."""
        return gr.update(choices=self._menu(model_id, panels))

    def reset(
        self, model_id: str, chosen: PanelAdapter, panels: Sequence[PanelAdapter], on_server: bool = False
    ) -> list[Any]:
        """`AdapterControls.outputs` for the plain model."""
        choices = ON_SERVER if on_server else self._menu(model_id, panels)
        dropdown = gr.update(choices=choices, value=NO_ADAPTER, interactive=not on_server)
        hidden = gr.Row(visible=False)
        return [dropdown, chosen.plain(), hidden, "", "", "", hidden, 1]

    async def _outcome(self, ticket: int, text: str, place: Place, panels: Sequence[PanelAdapter]) -> list[Any]:
        """Nothing where something else was chosen while the check ran."""
        try:
            checked = await self.pool.adapter(place.model_id, text)
            painted = self._accepted(text, checked, place, panels)
        except PlaygroundError as error:
            painted = _refused(str(error), place)
        except Exception:
            log.exception("adapter %s for %s", text, place.model_id)
            painted = _refused(UNEXPECTED, place)
        return painted if place.choosing.is_last(ticket) else NOTHING

    def _accepted(self, text: str, checked: CheckedAdapter, place: Place, panels: Sequence[PanelAdapter]) -> list[Any]:
        offered = {choice.id: choice for choice in self.pool.adapters(place.model_id)}
        value, label = (checked.id, "") if checked.id in offered else (text, view.adapter_words(checked.use()))
        chosen = place.chosen.accept(value, checked, label)
        purpose = offered[checked.id].about if checked.id in offered else ""
        return _paint(
            menu=gr.update(choices=self._menu(place.model_id, [*panels, chosen]), value=value),
            chosen=chosen,
            field=gr.Row(visible=False),
            text="",
            notice="",
            about=adapter_view.about(checked, purpose),
            tools=gr.Row(visible=True),
        )

    def _menu(self, model_id: str, panels: Sequence[PanelAdapter]) -> list[tuple[str, str]]:
        return menu(self.pool.adapters(model_id), typed_for(model_id, panels))

    def _label(self, value: str, place: Place, panels: Sequence[PanelAdapter]) -> str:
        return next((label for label, entry in self._menu(place.model_id, panels) if entry == value), value)


def _fault(text: str) -> str:
    """Why this names no adapter, whatever there is; "" if it may."""
    if len(text) > LONGEST:
        return f"An adapter's name has at most {LONGEST:,} characters, and this has {len(text):,}."
    if not text:
        return NAME_ONE
    half = half_character(text)
    return f"{half[:1].upper()}{half[1:]}." if half else ""


def _refused(sentence: str, place: Place) -> list[Any]:
    return _paint(menu=gr.update(value=place.chosen.value), notice=adapter_view.refusal(sentence, place.chosen))


def _paint(**changes: Any) -> list[Any]:
    """`AdapterControls.outputs` with these changes."""
    return [changes.get(name, gr.skip()) for name in NAMES]

"""One panel: drawing its components, and what it says about the model in its menu.

Knows no other panel and no event. Drawn by `build`, wired by `events`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from model_registry.spec import ModelSpec
from playground.ui import view
from playground.ui.adapters import AdapterControls, draw_adapter, draw_adapter_menu
from playground.ui.elsewhere.box import PlaceControls, draw_place
from playground.ui.elsewhere.place import PanelPlace, first_place, place_of
from playground.ui.lens.about import AboutView, draw_about
from playground.ui.lens.panel_lens import PanelLens, draw_lens
from playground.ui.lens.probabilities import Probabilities, draw_probabilities_button, draw_probabilities_view
from playground.ui.pace import StreamControl
from playground.ui.state import PanelState

if TYPE_CHECKING:
    from playground.engines.pooling.model_status import ModelStatus
    from playground.engines.pooling.protocol import Pool

Choices = list[tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """`default_system` is what the model in the menu brings along."""

    index: int
    column: gr.Column
    state: gr.State
    control: gr.State
    model: gr.Dropdown
    remove: gr.Button
    about: gr.HTML
    adapter: AdapterControls
    system: gr.Textbox
    default_system: gr.Textbox
    reset_system: gr.Button
    chat: gr.Chatbot
    notice: gr.HTML
    stop: gr.Button
    regenerate: gr.Button
    clear: gr.Button
    odds: Probabilities
    lens: PanelLens
    card: AboutView
    place: PlaceControls

    @property
    def question(self) -> list[gr.components.Component]:
        """The inputs from which a request is made: state, control, model, system prompt, adapter, scale, template,
        place."""
        adapter, written, place = self.adapter, self.lens.editor.written, self.place.state
        return [self.state, self.control, self.model, self.system, adapter.chosen, adapter.scale, written, place]

    @property
    def glance(self) -> list[gr.components.Component]:
        """The components of `Glance`, from which its lens is made."""
        lens = self.lens
        looked_at = [lens.mode, lens.with_ids, lens.every_turn]
        return [*looked_at, self.state, self.model, self.system, lens.editor.written, self.place.state, lens.watched]

    @property
    def shown_odds(self) -> list[gr.components.Component]:
        """The inputs that say whether the token probabilities that it shows may stay: Showing, state, model id."""
        return [self.odds.showing, self.state, self.model]

    @property
    def neighbour(self) -> list[gr.components.Component]:
        """The inputs that say whether another panel may put a model in here: control, adapter, its Choosing."""
        return [self.control, self.adapter.chosen, self.adapter.choosing]

    @property
    def everything(self) -> list[gr.components.Component | gr.Row | gr.Column]:
        """What shows another model: column, menu, system prompt, default, about line, adapter, place."""
        shown = [self.column, self.model, self.system, self.default_system, self.about]
        return [*shown, *self.adapter.outputs, *self.place.outputs]

    @property
    def answer(self) -> list[gr.components.Component]:
        """What shows a conversation: state, chat, notice."""
        return [self.state, self.chat, self.notice]


def draw_panel(index: int, spec: ModelSpec, pool: Pool, choices: Choices, shown: bool) -> Panel:
    """A panel that is not shown is drawn all the same, and hidden.

    Args:
        index: counts from 0.
        choices: of the model menu.
        shown: whether it is visible from the start.
    """
    runs_on, status = first_place(spec.id, pool.elsewhere), pool.status(spec.id)
    with gr.Column(visible=shown, min_width=0, elem_id=f"panel-{index}") as column:
        state, control = gr.State(PanelState()), gr.State(StreamControl())
        with gr.Row(elem_classes="head"):
            model = _draw_model(index, spec, choices)
            adapter_menu = draw_adapter_menu(index, pool.adapters(spec.id), runs_on.endpoint is not None)
            remove = gr.Button("Remove", size="sm", scale=0, min_width=0, elem_classes="remove-panel")
        about = gr.HTML(about_place(spec, runs_on, pool), elem_classes="about")
        adapter = draw_adapter(index, adapter_menu)
        with gr.Row(elem_classes="boxes-row"):
            place = draw_place(index, runs_on, pool.elsewhere, status.state != "too_large")
            system, default_system, reset = _draw_system(spec)
            lens = draw_lens(index, spec.id)
            card = draw_about()
        notice = gr.HTML(elem_classes="notice")
        chat = gr.Chatbot(
            label=f"Conversation of panel {index + 1}",
            show_label=False,
            container=False,
            height="var(--chat-height)",
            layout="panel",
            render_markdown=False,
            latex_delimiters=[],
            buttons=[],
            feedback_options=None,
            elem_classes="chat",
        )
        odds_view = draw_probabilities_view()
        with gr.Row(elem_classes="actions"):
            stop = gr.Button("Stop", size="sm", min_width=0, elem_classes="stop-panel")
            regenerate = gr.Button("Regenerate", size="sm", min_width=0, elem_classes="regenerate-panel")
            clear = gr.Button("Clear", size="sm", min_width=0, elem_classes="clear-panel")
            odds = draw_probabilities_button(odds_view)
    return Panel(
        index, column, state, control, model, remove, about, adapter, system, default_system, reset,
        chat, notice, stop, regenerate, clear, odds, lens, card, place,
    )  # fmt: skip


def _draw_model(index: int, spec: ModelSpec, choices: Choices) -> gr.Dropdown:
    return gr.Dropdown(
        choices,
        value=spec.id,
        label=f"Model of panel {index + 1}",
        show_label=False,
        container=False,
        filterable=False,
        scale=1,
        min_width=120,
        elem_classes="model",
    )


def _draw_system(spec: ModelSpec) -> tuple[gr.Textbox, gr.Textbox, gr.Button]:
    with gr.Accordion("System prompt", open=False, elem_classes="system-box"):
        system = gr.Textbox(
            spec.prompt.default_system,
            label="System prompt",
            show_label=False,
            lines=2,
            max_lines=8,
            elem_classes="system",
            **system_properties(spec),
        )
        reset = gr.Button("Reset to the model's own", size="sm", interactive=False, elem_classes="reset-system")
        default_system = gr.Textbox(spec.prompt.default_system, visible="hidden", label="The model's own")
    return system, default_system, reset


def system_properties(spec: ModelSpec) -> dict[str, Any]:
    """Whether a system prompt can be given to this model, and why not; Gradio reads `info` as Markdown with HTML."""
    if not spec.prompt.system_role:
        return {
            "interactive": False,
            "info": f"Not sent: {view.verbatim(spec.name)} has no system prompt in its format.",
        }
    empty = "the template puts in the model's own" if spec.prompt.default_system else "none is sent"
    return {"interactive": True, "info": f"Sent before the conversation. Empty: {empty}."}


def about_place(spec: ModelSpec, place: PanelPlace, pool: Pool) -> str:
    """The line under the menu, of a model where it runs in a panel."""
    endpoint = place_of(place, spec.id, pool.elsewhere).endpoint
    return about_model(spec, pool.status(spec.id), endpoint.address if endpoint else "")


def about_model(spec: ModelSpec, status: ModelStatus, server: str = "") -> str:
    """One line under the menu: a badge where the model is a stand-in, who answers or what a prompt to it starts, then
    size, languages and licences. `server`: its address, "" where this machine answers."""
    facts = [f"{human_count(spec.parameters)} parameters", ", ".join(spec.languages)]
    facts += [f"{licence.text} ({licence.source})" for licence in spec.licences]
    line = "".join(f"<span>{view.verbatim(fact)}</span>" for fact in facts)
    badge = (
        f'<span class="badge">stand-in for {view.verbatim(spec.stand_in_for or "")}</span>' if spec.is_stand_in else ""
    )
    coming = f"Answers come from {server}" if server else what_comes(status)
    state = "elsewhere" if server else status.state
    first = f'<span class="coming {state}">{view.verbatim(coming)}</span>' if coming else ""
    return f'<div class="about-line">{badge}{first}{line}</div>'


def what_comes(status: ModelStatus) -> str:
    """What the next prompt to a model that is not there sets in motion; empty where it is there."""
    match status.state:
        case "ready":
            return ""
        case "loading":
            return "Is being loaded"
        case "local":
            return "Loads on the next prompt"
        case "download":
            return f"{_capital(status.detail)} on the next prompt"
        case "too_large":
            return f"{_capital(status.detail)}; this machine has too little free"
        case "not_here":
            return f"{_capital(status.detail)}: choose another model"
        case "failed":
            return "Failed to load; the next prompt tries again"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def human_count(number: int) -> str:
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def menu_choices(registry: Iterable[ModelSpec], pool: Pool) -> Choices:
    """(label, id) of every model that can answer at all: its name, and how far it is from answering."""
    found = [(spec, pool.status(spec.id), bool(pool.elsewhere.servers_of(spec.id))) for spec in registry]
    return [
        (menu_label(spec, status, has_server), spec.id)
        for spec, status, has_server in found
        if status.state != "not_here" or has_server or pool.elsewhere.may_be_named
    ]


def menu_label(spec: ModelSpec, status: ModelStatus, has_server: bool = False) -> str:
    kind = ("stand-in",) if spec.is_stand_in and "stand-in" not in spec.name.lower() else ()
    detail = "failed to load" if status.state == "failed" else status.detail  # why is a sentence, too long for a menu
    if has_server and status.state not in ("ready", "loading"):
        detail = "on a server"
    return " · ".join((spec.name, *kind, detail))

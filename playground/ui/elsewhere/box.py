"""The box "Runs on" of a panel: drawing it, and what it says of a place.

Knows no event and no engine. Drawn by `panel`, painted by the handlers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.engines.elsewhere import Elsewhere, KnownServer
from playground.types import address_of
from playground.ui.adapter_state import Choosing
from playground.ui.elsewhere.place import ANOTHER, THIS_MACHINE, KeptKey, PanelPlace
from playground.ui.view import hint, verbatim

OWN_TEMPLATE = "Off: it gets your messages, and its own template makes the prompt, which the preview here cannot show."
PLAIN = gr.InputHTMLAttributes(spellcheck=False, autocapitalize="off", autocorrect="off")


@dataclass(frozen=True)
class PlaceControls:
    """`state` is its PanelPlace, `kept` its KeptKey or None. `served` are the models of the catalog's server that is in
    use; `fields` holds what names another server."""

    state: gr.State
    kept: gr.State
    choosing: gr.State
    box: gr.Accordion
    where: gr.Dropdown
    served: gr.Dropdown
    fields: gr.Column
    url: gr.Textbox | gr.Dropdown
    key: gr.Textbox
    key_row: gr.Row
    key_said: gr.HTML
    forget: gr.Button
    model: gr.Dropdown
    list_models: gr.Button
    same_model: gr.Checkbox
    use: gr.Button
    notice: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """What a handler paints."""
        return [getattr(self, name) for name in NAMES]


NAMES = ("state", "kept", "box", "where", "served", "fields", "key", "key_row", "key_said", "model", "notice")
"""What a handler paints, by the names of `PlaceControls`."""


def draw_place(index: int, place: PanelPlace, elsewhere: Elsewhere, fits_here: bool) -> PlaceControls:
    """`index` counts from 0; `fits_here`: whether this machine can hold the model."""
    whose, here = f"of panel {index + 1}", properties(place, elsewhere, fits_here)
    state, kept, choosing = gr.State(place), gr.State(None), gr.State(Choosing())
    with gr.Accordion(open=False, elem_classes="place-box", **here["box"]) as box:
        where = gr.Dropdown(
            label=f"Place {whose}", show_label=False, container=False, filterable=False, min_width=0,
            elem_classes="where", **here["where"],
        )  # fmt: skip
        served = gr.Dropdown(
            label="Model there", info="The model, then its adapters", filterable=False, min_width=0,
            elem_classes="served", **here["served"],
        )  # fmt: skip
        with gr.Column(visible=False, elem_classes="place-fields") as fields:
            url = _draw_url(elsewhere)
            key = gr.Textbox(
                label="Key", type="password", placeholder="none", max_lines=1, elem_classes="place-key",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
            )  # fmt: skip
            with gr.Row(visible=False, elem_classes="key-row") as key_row:
                key_said = gr.HTML(elem_classes="key-said")
                forget = gr.Button("Forget", size="sm", scale=0, min_width=0, elem_classes="forget-key")
            with gr.Row(elem_classes="model-row"):
                model = gr.Dropdown(
                    [], value=None, label="Model there", allow_custom_value=True, min_width=0,
                    elem_classes="model-there",
                )  # fmt: skip
                list_models = gr.Button("List models", size="sm", scale=0, min_width=0, elem_classes="list-models")
            same_model = gr.Checkbox(True, label="The server runs this panel's model", info=OWN_TEMPLATE)
            use = gr.Button("Use", size="sm", elem_classes="use-server")
        notice = gr.HTML(here["notice"], elem_classes="place-notice")
    return PlaceControls(
        state, kept, choosing, box, where, served, fields, url, key, key_row, key_said, forget,
        model, list_models, same_model, use, notice,
    )  # fmt: skip


def _draw_url(elsewhere: Elsewhere) -> gr.Textbox | gr.Dropdown:
    first = elsewhere.endpoints[0] if elsewhere.endpoints else ""
    if not elsewhere.any_endpoint:
        listed = [*elsewhere.endpoints]
        return gr.Dropdown(listed, value=first or None, label="Address", filterable=False, elem_classes="place-url")
    return gr.Textbox(
        first,
        label="Address",
        info="of an OpenAI-compatible API",
        placeholder="http://127.0.0.1:8000/v1",
        max_lines=1,
        elem_classes="place-url",
        html_attributes=PLAIN,
    )


def properties(place: PanelPlace, elsewhere: Elsewhere, fits_here: bool) -> dict[str, Any]:
    """What follows the place: properties of `box`, `where` and `served`, and the HTML of `notice`."""
    servers = elsewhere.servers_of(place.model_id)
    server = next((each for each in servers if each.id == place.value), None)
    models = [*server.models] if server else []
    endpoint = place.endpoint
    return {
        "box": {"label": label(place), "visible": bool(servers) or elsewhere.may_be_named},
        "where": {"choices": choices(servers, fits_here, elsewhere.may_be_named), "value": place.value},
        "served": {
            "choices": models,
            "value": endpoint.model if endpoint and server else None,
            "visible": len(models) > 1,
        },
        "notice": missing_key(server) if server else "",
    }


def choices(servers: Sequence[KnownServer], fits_here: bool, another: bool) -> list[tuple[str, str]]:
    """(label, value) of the menu. A machine that is too small is none to choose where a server has the model."""
    entries = [("This machine", THIS_MACHINE)] if fits_here or not servers else []
    entries += [(server.label, server.id) for server in servers]
    return [*entries, ("Another server …", ANOTHER)] if another else entries


def label(place: PanelPlace) -> str:
    return f"Runs on {place.words}"


def missing_key(server: KnownServer) -> str:
    if not server.missing_key:
        return ""
    return hint(f"{server.name} wants a key, and {server.missing_key} is not set where the playground was started.")


def in_use(place: PanelPlace) -> str:
    return verbatim(place.words)


def key_line(kept: KeptKey | None) -> str:
    return f'<div class="key-line">Key is set for {verbatim(address_of(kept.url))}</div>' if kept else ""

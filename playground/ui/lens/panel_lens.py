"""The lens of one panel: a box with the prompt as text, as tokens, or the template that it is made with.

Knows no other panel and no event. Drawn by `panel`, wired by `events`.
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from playground.ui.lens.glance import Watched
from playground.ui.lens.template_editor import VIEW, TemplateEditor, draw_editor

MODES = ["Prompt", "Tokens", VIEW]


@dataclass(frozen=True)
class PanelLens:
    """`watched` says whether anybody looks. The style sheet shows what `mode` chooses, so that no event is needed."""

    box: gr.Accordion
    watched: gr.State
    mode: gr.Radio
    with_ids: gr.Checkbox
    every_turn: gr.Checkbox
    editor: TemplateEditor
    view: gr.HTML


def draw_lens(index: int, model_id: str) -> PanelLens:
    """`index` counts from 0."""
    with gr.Accordion("Template preview", open=False, elem_classes="preview-box") as box:
        watched = gr.State(Watched(model_id))
        with gr.Row(elem_classes="lens-bar"):
            mode = gr.Radio(
                MODES,
                value="Prompt",
                label=f"Template preview of panel {index + 1}",
                show_label=False,
                container=False,
                elem_classes="segments",
            )
            with_ids = gr.Checkbox(False, label="Token ids", container=False, min_width=0, elem_classes="with-ids")
            every_turn = gr.Checkbox(
                False, label="Tokens of every turn", container=False, min_width=0, elem_classes="every-turn"
            )
        editor = draw_editor(index)
        view = gr.HTML(elem_classes="lens-view", js_on_load=None, apply_default_css=False)
    return PanelLens(box, watched, mode, with_ids, every_turn, editor, view)

"""The bar at the foot of the page: the prompt, its buttons, the example prompts.

Knows no panel. Drawn by `build`, wired by `events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from playground.ui.examples import Example


@dataclass(frozen=True)
class PromptBar:
    """`typed` follows the prompt while it matters to a lens or to the caution, and rests otherwise; they listen to it
    alone."""

    prompt: gr.Textbox
    typed: gr.Textbox
    hint: gr.HTML
    caution: gr.HTML
    send: gr.Button
    stop_all: gr.Button
    clear_all: gr.Button
    add_panel: gr.Button
    examples: list[tuple[gr.Button, Example]]


def draw_prompt_bar(examples: Sequence[Example]) -> PromptBar:
    with gr.Column(elem_id="prompt-bar"):
        chips = _draw_examples(examples) if examples else []
        hint = gr.HTML(elem_id="hint")
        with gr.Row(elem_classes="ask"):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="Ask every panel at once. Enter sends, Shift+Enter starts a new line.",
                show_label=False,
                container=False,
                lines=1,
                max_lines=6,
                autofocus=True,
                scale=8,
                elem_id="prompt",
                html_attributes=gr.InputHTMLAttributes(spellcheck=False),
            )
            send = gr.Button("Send", variant="primary", scale=0, min_width=0, elem_id="send")
            stop_all = gr.Button("Stop all", scale=0, min_width=0, elem_id="stop-all")
            clear_all = gr.Button("Clear all", scale=0, min_width=0, elem_id="clear-all")
            add_panel = gr.Button("Add panel", scale=0, min_width=0, elem_id="add-panel")
        caution = gr.HTML(elem_id="caution", js_on_load=None, apply_default_css=False)
        typed = gr.Textbox("", visible="hidden", elem_id="typed")
    return PromptBar(prompt, typed, hint, caution, send, stop_all, clear_all, add_panel, chips)


def _draw_examples(examples: Sequence[Example]) -> list[tuple[gr.Button, Example]]:
    with gr.Row(elem_id="examples"):
        return [
            (gr.Button(example.label, size="sm", min_width=0, scale=0, elem_classes="chip"), example)
            for example in examples
        ]

"""The Prompting drawer: what the user decides about how a conversation becomes a prompt, for all panels.

Knows no panel and no engine. Drawn by `build`, read by the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gradio as gr

from playground.types import ControlText, PromptOptions, WhenFull

WHEN_FULL = (
    "Refuse: nothing is sent. Otherwise: leave out the oldest turns until the longest answer asked for fits, or half "
    "the context is free; never the system prompt, never the last message."
)
CONTROL = (
    "Such as </s> or <|SYSTEM|>. Plain text: the model reads its letters. "
    "As typed: it becomes the control token itself."
)


class PromptingValues(NamedTuple):
    """What the controls hold, in their order."""

    control: ControlText
    when_full: WhenFull

    def options(self, template: str | None = None) -> PromptOptions:
        """`template`: the panel's own, None for the model's."""
        return PromptOptions(template=template, control=self.control, when_full=self.when_full)


@dataclass(frozen=True)
class PromptingControls:
    control: gr.Radio
    when_full: gr.Radio

    @property
    def inputs(self) -> list[gr.Radio]:
        """The components of `PromptingValues`, in its order."""
        return [self.control, self.when_full]


def draw_prompting() -> PromptingControls:
    with gr.Accordion("Prompting", open=False, elem_classes="prompting"), gr.Row(elem_classes="controls"):
        control = gr.Radio(
            [("Plain text", "plain"), ("As typed", "as_typed")],
            value="plain",
            label="Control tokens in what you type",
            info=CONTROL,
            elem_id="control-text",
        )
        when_full = gr.Radio(
            [("Refuse", "refuse"), ("Leave out the oldest turns", "drop_oldest")],
            value="refuse",
            label="When the context is full",
            info=WHEN_FULL,
            elem_id="when-full",
        )
    return PromptingControls(control, when_full)

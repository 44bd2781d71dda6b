"""The accordion with a model's card in a panel: filled while it is open, empty while it is closed.

Knows no other panel; the markup is `model_card`'s. Drawn by `panel`, wired by `events`.
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from model_registry.registry import Registry
from playground.ui.lens.model_card import model_card


@dataclass(frozen=True)
class AboutView:
    box: gr.Accordion
    card: gr.HTML


def draw_about() -> AboutView:
    with gr.Accordion("About", open=False, elem_classes="about-box") as box:
        card = gr.HTML(apply_default_css=False)
    return AboutView(box, card)


@dataclass(frozen=True)
class AboutHandlers:
    registry: Registry

    async def open(self, model_id: str) -> str:
        """Inputs: the panel's model. Outputs: its card."""
        return model_card(self.registry.get(model_id))

    async def follow(self, model_id: str, is_open: str) -> str:
        """Inputs: the panel's model, "" where the card is closed. Outputs: the card."""
        return await self.open(model_id) if is_open else ""

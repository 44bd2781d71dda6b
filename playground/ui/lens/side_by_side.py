"""The drawer "Tokens side by side": what is typed, or was asked last, in the tokens of every shown panel's model.

Follows the typing while it is open; while it is closed nothing is computed and nothing is sent. Knows no panel; the
markup is `side_by_side_view`'s. Drawn by `build`, wired by `events`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from model_registry.registry import Registry
from playground.admission.lengths import too_long
from playground.errors import PlaygroundError
from playground.limits import OPEN, Limits
from playground.prompting.prompt import TokenizedText
from playground.types import half_character
from playground.ui.handlers import groups
from playground.ui.lens import side_by_side_view
from playground.ui.lens.side_by_side_view import Column
from playground.ui.state import PanelState

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool
    from playground.prompting.encoder import PromptEncoder

PATIENCE_S = 3.0
"""Seconds that one model's tokenizer may take."""

PROBE = "The 3 quick brown foxes: नमस्ते क्षत्रिय, வணக்கம், 안녕하세요 뷁, 你好, é 👩‍👩‍👧\n\t x += 1"
"""Two models with the same tokens for this, and for the text, are taken to have the same tokenizer."""

NOTHING = "Type a prompt to see it in the tokens of every panel's model."

FOLLOW = "(prompt, laid) => document.querySelector('.side-by-side') ? prompt : laid"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SideBySide:
    """`laid` follows the prompt while the box is open, and rests otherwise; the server hears of it alone."""

    box: gr.Accordion
    is_open: gr.State
    laid: gr.Textbox
    view: gr.HTML


def draw_side_by_side() -> SideBySide:
    with gr.Accordion("Tokens side by side", open=False, elem_classes="side-by-side-box") as box:
        view = gr.HTML(js_on_load=None, apply_default_css=False)
        laid = gr.Textbox("", visible="hidden", label="The text that is laid out")
    return SideBySide(box, gr.State(False), laid, view)


class Standing(NamedTuple):
    """What counts of a panel here."""

    state: PanelState
    model_id: str


@dataclass(frozen=True)
class SideBySideHandlers:
    registry: Registry
    pool: Pool
    limits: Limits = OPEN

    async def open(self, shown: Sequence[bool], typed: str, *panels: Any) -> list[Any]:
        """Inputs: which panels are shown, prompt, the Standing of every panel. Outputs: that it is open, the view."""
        return [True, await self._lay(shown, typed, groups(Standing, panels))]

    async def follow(self, is_open: bool, shown: Sequence[bool], typed: str, *panels: Any) -> Any:
        """Inputs: whether it is open, then as `open`. Outputs: the view, left alone where it is closed."""
        return await self._lay(shown, typed, groups(Standing, panels)) if is_open else gr.skip()

    async def close(self) -> list[Any]:
        """Inputs: none. Outputs: that it is closed, an empty view."""
        return [False, ""]

    async def _lay(self, shown: Sequence[bool], typed: str, every: Sequence[Standing]) -> str:
        panels = [panel for panel, is_shown in zip(every, shown, strict=True) if is_shown]
        asked = next((panel.state.last.prompt for panel in panels if panel.state.last), "")
        text = typed if typed.strip() else asked
        if sentence := half_character(text):
            return side_by_side_view.empty(f"This cannot be laid out: {sentence}.")
        if sentence := too_long({"Prompt": text}, self.limits):
            return side_by_side_view.empty(sentence)
        if not text:
            return side_by_side_view.empty(NOTHING)
        models = dict.fromkeys(panel.model_id for panel in panels)
        columns = await asyncio.gather(*(self._column(model_id, text) for model_id in models))
        title = "What is typed, by itself." if text is typed else "The last prompt, by itself."
        return await asyncio.to_thread(side_by_side_view.table, title, merged(columns))

    async def _column(self, model_id: str, text: str) -> tuple[Column, TokenizedText | None]:
        """The column and the probe's tokens; every error becomes a sentence in its place."""
        name = self.registry.get(model_id).name
        try:
            encoder = await asyncio.wait_for(self.pool.encoder(model_id), PATIENCE_S)
            tokens, probe = await asyncio.to_thread(_tokenize, encoder, text)
            return Column(name, tokens), probe
        except TimeoutError:
            return Column(name, None, "The tokenizer is still being loaded. Type on to try again."), None
        except PlaygroundError as error:
            return Column(name, None, str(error)), None
        except Exception:
            log.exception("tokens of %s", model_id)
            return Column(name, None, "Unexpected error: the log has the details."), None


def _tokenize(encoder: PromptEncoder, text: str) -> tuple[TokenizedText, TokenizedText]:
    return encoder.tokenize(text), encoder.tokenize(PROBE)


def merged(columns: Sequence[tuple[Column, TokenizedText | None]]) -> list[Column]:
    """One column a tokenizer, named after all the models that have it. Each comes with its tokens of the probe."""
    found: list[tuple[Column, TokenizedText | None]] = []
    for column, probe in columns:
        for place, (other, its) in enumerate(found):
            if probe is not None and (probe, column.tokens) == (its, other.tokens):
                found[place] = (Column(f"{other.name}, {column.name}", other.tokens), its)
                break
        else:
            found.append((column, probe))
    return [column for column, _ in found]

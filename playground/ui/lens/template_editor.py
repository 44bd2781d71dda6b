"""A panel's template as a text that can be changed, in the third view of its lens: for this panel, in this session.

The text is put in when the view is opened, and checked at each key. Knows no other panel; what it says is
`template_view`'s. Drawn by `panel_lens`, wired by `events`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from playground.admission.lengths import too_long
from playground.errors import PlaygroundError
from playground.limits import OPEN, Limits
from playground.prompting.templates import TemplateFault, check_template
from playground.types import Message, PromptOptions
from playground.ui.lens import template_view
from playground.ui.lens.template_diff import lines_of

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool
    from playground.prompting.encoder import PromptEncoder

VIEW = "Template"
"""What the lens' radio calls this view."""

PATIENCE_S = 3.0
"""Seconds that a report waits for a tokenizer, so that one panel never holds up another's lens."""

FILL_S = 15.0
"""Seconds that the text waits for it."""

SHORT = (Message(role="user", content="Hello"),)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanelTemplate:
    """The template that a user wrote for the model that was in the panel; any other model has its own."""

    model_id: str = ""
    text: str = ""
    fault: TemplateFault | None = None

    def options_text(self, model_id: str) -> str | None:
        """What goes into the request's options. One with a fault too: the encoder refuses it with a sentence."""
        return self.text if self.model_id and self.model_id == model_id else None


@dataclass(frozen=True)
class TemplateEditor:
    written: gr.State
    text: gr.Textbox
    reset: gr.Button


def draw_editor(index: int) -> TemplateEditor:
    """`index` counts from 0. The style sheet shows it where the view is chosen."""
    text = gr.Textbox(
        label=f"Chat template of panel {index + 1}",
        show_label=False,
        container=False,
        lines=8,
        max_lines=16,
        interactive=False,
        elem_classes=["template-editor", "template-text"],
        html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
    )
    reset = gr.Button("Reset to the model's own", size="sm", elem_classes=["template-editor", "reset-template"])
    return TemplateEditor(gr.State(PanelTemplate()), text, reset)


@dataclass(frozen=True)
class TemplateHandlers:
    """`may_edit`: whether templates may be changed at all on this page."""

    pool: Pool
    may_edit: bool
    limits: Limits = OPEN

    async def fill(self, is_open: bool, mode: str, model_id: str, written: PanelTemplate) -> Any:
        """Inputs: whether the lens is open, its view, model, template. Outputs: the text, where anybody looks."""
        if not is_open or mode != VIEW:
            return gr.skip()
        try:
            text = written.options_text(model_id)
            shown = text if text is not None else (await self._encoder(model_id, FILL_S)).template.text
        except PlaygroundError:
            return gr.update(interactive=False)  # the report says why
        return gr.update(value=shown, interactive=self.may_edit)

    async def edit(self, text: str, model_id: str, written: PanelTemplate) -> list[Any]:
        """Inputs: the text, model, template. Outputs: the template, the report.

        Also called when `fill` has put another model's text in: what was written for the first one stays.
        """
        if not self.may_edit:
            return [gr.skip(), gr.skip()]
        if sentence := too_long({"Template": text}, self.limits):
            return [gr.skip(), template_view.unavailable(sentence)]
        try:
            own = (await self._encoder(model_id)).template.text
        except PlaygroundError as error:
            return [gr.skip(), template_view.unavailable(str(error))]
        if lines_of(text) != lines_of(own):
            written = PanelTemplate(model_id, text, await asyncio.to_thread(check_template, text))
        elif written.model_id == model_id:
            written = PanelTemplate()
        return [written, await self.report(model_id, written)]

    async def reset(self, model_id: str) -> list[Any]:
        """Inputs: model. Outputs: the text, the template, the report."""
        text = await self.fill(True, VIEW, model_id, PanelTemplate())
        return [text, PanelTemplate(), await self.report(model_id, PanelTemplate())]

    async def report(self, model_id: str, written: PanelTemplate) -> str:
        """What stands under the text; every error becomes a sentence in its place."""
        try:
            encoder = await self._encoder(model_id)
            return await asyncio.to_thread(self._report, encoder, written)
        except PlaygroundError as error:
            return template_view.unavailable(str(error))
        except Exception:
            log.exception("template of %s", model_id)
            return template_view.unavailable("Unexpected error in the template view: the log has the details.")

    def _report(self, encoder: PromptEncoder, written: PanelTemplate) -> str:
        text = written.options_text(encoder.spec.id)
        fault = written.fault if text is not None else None
        trial = "" if text is None or fault else _try(encoder, text)
        return template_view.report(encoder.template, text, fault, trial, self.may_edit)

    async def _encoder(self, model_id: str, patience_s: float = PATIENCE_S) -> PromptEncoder:
        """Raises PlaygroundError."""
        try:
            return await asyncio.wait_for(self.pool.encoder(model_id), patience_s)
        except TimeoutError as error:
            raise PlaygroundError("The tokenizer is still being loaded. Open this view again in a moment.") from error


def _try(encoder: PromptEncoder, text: str) -> str:
    """Why the template fails on a message that any template should take, "" if it does not."""
    try:
        encoder.preview(SHORT, PromptOptions(template=text))
    except PlaygroundError as error:
        return str(error)
    return ""

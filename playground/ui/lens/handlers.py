"""What happens when somebody types, opens a lens or turns one of its switches.

Nothing is computed for a lens that is closed, and no handler here waits for an engine. Knows no component but those it
returns values for. Wired by `events`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from model_registry.registry import Registry
from playground.admission.lengths import too_long, too_long_in_all
from playground.errors import PlaygroundError
from playground.limits import OPEN, Limits
from playground.types import Message, PromptOptions, half_character
from playground.ui.elsewhere.place import place_of
from playground.ui.handlers import groups, sendable_system
from playground.ui.lens import lens_view, look
from playground.ui.lens.glance import Glance, Typing, Watched
from playground.ui.lens.template_editor import TemplateHandlers
from playground.ui.state import PanelState

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

CAUTION_S = 1.0
"""Seconds that one model's tokenizer may take to tell its control tokens before the caution goes without."""

SUSPECTS = frozenset("<[{|")
"""Every control token that is known has one of these; the browser looks for them too, in `events`."""

AS_TYPED = PromptOptions(control="as_typed")
"""The prompt that costs least to make, and has no reason to be refused."""

NOTHING = "Type a prompt to see the exact text that this model would receive."


@dataclass(frozen=True)
class LensHandlers:
    registry: Registry
    pool: Pool
    templates: TemplateHandlers
    limits: Limits = OPEN

    async def looks(self, *values: Any) -> list[Any]:
        """Inputs: Typing, the Glance of every panel that is asked for. Outputs: the lens of each, empty if closed."""
        typing, glances = _read(values)
        return await asyncio.gather(*(self._picture(typing, glance) for glance in glances))

    async def follow(self, shown: Sequence[bool], *values: Any) -> list[Any]:
        """Inputs: which panels are shown, Typing, the Glance of every panel. Outputs: the caution, then as `looks`."""
        typing, glances = _read(values)
        models = dict.fromkeys(glance.model_id for glance, is_shown in zip(glances, shown, strict=True) if is_shown)
        return await asyncio.gather(
            self._caution(typing, [*models]), *(self._picture(typing, glance) for glance in glances)
        )

    async def follow_key(self, shown: Sequence[bool], typed: str, *values: Any) -> list[Any]:
        """As `follow`, where nothing but the text and the conversations can have changed.

        Inputs: which panels are shown, the text, the state and the Watched of every panel. Outputs: as `follow`.
        """
        panels: list[tuple[PanelState, Watched]] = [*zip(values[::2], values[1::2], strict=True)]
        for _, watched in panels:
            watched.heard = typed
        visible = [watched for (_, watched), is_shown in zip(panels, shown, strict=True) if is_shown]
        models = dict.fromkeys(watched.model_id for watched in visible)
        typing = panels[0][1].typing._replace(typed=typed)
        return await asyncio.gather(
            self._caution(typing, [*models]), *(self._next_picture(typed, state, watched) for state, watched in panels)
        )

    async def open(self, followed: str, *values: Any) -> Any:
        """A key that was pressed since may have come first, and found the lens closed: then its text counts.

        Inputs: the text that was followed as it was opened, Typing, the panel's Glance. Outputs: its lens.
        """
        typing, (glance,) = _read(values)
        if glance.watched.heard not in (None, followed):
            typing = typing._replace(typed=glance.watched.heard)
        glance.watched.open(typing.typed)
        return await self._picture(typing, glance)

    async def close(self, watched: Watched) -> str:
        """Inputs: the panel's Watched. Outputs: an empty lens."""
        watched.close()
        return ""

    async def fill_editor(self, watched: Watched, *place: Any) -> Any:
        """Inputs: the panel's Watched, then as `TemplateHandlers.fill`. Outputs: as there."""
        return await self.templates.fill(watched.is_open, *place)

    async def _picture(self, typing: Typing, glance: Glance) -> Any:
        typing = glance.watched.newest(typing)
        number = glance.watched.begin(typing, glance)
        markup = await self._look(typing, glance)
        return markup if glance.watched.is_last(number) else gr.skip()

    async def _next_picture(self, typed: str, state: PanelState, watched: Watched) -> Any:
        """Nothing where the text changes nothing: under a closed lens, or a template."""
        glance = watched.glance
        if glance is None or not watched.is_open or glance.mode == "Template":
            return gr.skip()
        return await self._picture(watched.typing._replace(typed=typed), glance._replace(state=state))

    async def _look(self, typing: Typing, glance: Glance) -> str:
        if not glance.watched.is_open:
            return ""
        if glance.mode == "Template":
            return await self.templates.report(glance.model_id, glance.template)
        system = sendable_system(self.registry.get(glance.model_id), glance.system)
        template = glance.template.options_text(glance.model_id)
        if sentence := half_character(typing.typed) or half_character(system) or half_character(template or ""):
            return lens_view.error(f"This cannot be sent: {sentence}.")
        texts = {"Prompt": typing.typed, "System prompt": system, "Template": template or ""}
        if sentence := too_long(texts, self.limits):
            return lens_view.error(sentence)
        endpoint = place_of(glance.place, glance.model_id, self.pool.elsewhere).endpoint
        asked = look.subject(
            glance.state,
            glance.model_id,
            system,
            typing.prompting.options(template),
            max(1, int(typing.answer_tokens or 1)),
            typing.typed,
            endpoint,
            self.pool.elsewhere.sent_as(endpoint) if endpoint else None,
        )
        if asked is None:
            return lens_view.empty(NOTHING)
        if sentence := too_long_in_all(asked.messages, self.limits):
            return lens_view.error(sentence)
        return await look.render(self.pool, asked, glance.mode, glance.with_ids, glance.every_turn)

    async def _caution(self, typing: Typing, model_ids: Sequence[str]) -> str:
        text = typing.typed
        if SUSPECTS.isdisjoint(text) or half_character(text) or too_long({"Prompt": text}, self.limits):
            return ""
        found = await asyncio.gather(*(self._control_tokens(model_id, typing.typed) for model_id in model_ids))
        names = [self.registry.get(model_id).name for model_id in model_ids]
        return lens_view.caution([*zip(names, found, strict=True)], typing.prompting.control)

    async def _control_tokens(self, model_id: str, typed: str) -> tuple[str, ...]:
        """The control tokens that a text spells out for a model, each once; none if it cannot tell by now."""
        try:
            encoder = await asyncio.wait_for(self.pool.encoder(model_id), CAUTION_S)
            prompt = await asyncio.to_thread(encoder.preview, [Message(role="user", content=typed)], AS_TYPED)
        except (TimeoutError, PlaygroundError):
            return ()  # the panel says what is wrong with its tokenizer
        return tuple(dict.fromkeys(each.token for each in prompt.control_in_text))


def _read(values: Sequence[Any]) -> tuple[Typing, list[Glance]]:
    count = len(Typing._fields)
    return Typing(*values[:count]), groups(Glance, values[count:])

"""What happens on each event, except the streaming itself. `events` says which event calls which method.

Every handler works on one session's values and returns new ones; while a panel's stream is open nobody else writes its
state, so buttons then speak to the stream. Knows no component but those it returns updates for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.admission.lengths import check_conversation, check_texts, check_turns
from playground.errors import ContextFullError, EngineBusyError, PlaygroundError, PromptError, SamplingError
from playground.types import GenerationRequest, SamplingParams, half_character, new_request_id
from playground.ui import view
from playground.ui.adapter_state import PanelAdapter
from playground.ui.elsewhere.place import PanelPlace, place_of
from playground.ui.lens.prompting import PromptingValues
from playground.ui.lens.template_editor import PanelTemplate
from playground.ui.pace import StreamControl
from playground.ui.panel import about_place, menu_choices, system_properties
from playground.ui.sampling import SamplingValues, read_sampling
from playground.ui.state import PanelState
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

CHECK_S = 2.0
"""Seconds that one panel's tokenizer may take before its prompt goes out unchecked; the stream checks again."""

NOT_TAKEN = (EngineBusyError, SamplingError, PromptError)
"""Why a prompt stays in its box."""

STILL_ANSWERING = "A panel is still answering: wait for it, or press Stop. Your prompt stays here."


class Question(NamedTuple):
    """`Panel.question`: what a panel's request is made from."""

    state: PanelState
    control: StreamControl
    model_id: str
    system: str
    adapter: PanelAdapter
    scale: float | None
    template: PanelTemplate
    place: PanelPlace

    @property
    def template_text(self) -> str | None:
        """The user's; None for the model's own."""
        return self.template.options_text(self.model_id)


class Wishes(NamedTuple):
    """What all panels are asked with."""

    sampling: SamplingValues
    prompting: PromptingValues

    @classmethod
    def take(cls, values: Sequence[Any]) -> tuple[Wishes, Sequence[Any]]:
        """The wishes that flat event inputs begin with, and the rest of them."""
        sampling = len(SamplingValues._fields)
        both = sampling + len(PromptingValues._fields)
        return cls(SamplingValues(*values[:sampling]), PromptingValues(*values[sampling:both])), values[both:]


@dataclass(frozen=True)
class Handlers:
    registry: Registry
    pool: Pool
    entrance: Entrance = field(default_factory=Entrance)

    async def start_turn(self, request: gr.Request, prompt: str, shown: Sequence[bool], *rest: Any) -> list[Any]:
        """Put the prompt into every shown panel's own history; a panel that cannot take it says why.

        Inputs: prompt, which panels are shown, SamplingValues, PromptingValues, Question of every panel.
        Outputs: prompt, seed, hint, then state, chat and notice of every panel.
        """
        wishes, parts = Wishes.take(rest)
        questions = groups(Question, parts)
        nothing = [gr.skip()] * (3 + 3 * len(questions))
        if not prompt.strip():
            return nothing
        asked = [question if is_shown else None for question, is_shown in zip(questions, shown, strict=True)]
        if any(question.control.is_open for question in asked if question):
            return [*nothing[:2], view.hint(STILL_ANSWERING), *nothing[3:]]
        try:
            sampling = read_sampling(wishes.sampling, self.entrance.limits)
            requests, refusals = await self._admit(request, prompt, asked, sampling, wishes.prompting)
        except NOT_TAKEN as error:
            return [*nothing[:2], view.hint(str(error)), *nothing[3:]]
        taken = [each for each, refusal in zip(requests, refusals, strict=True) if each and not refusal]
        await self._expect(taken)
        panels = [_open(*each) for each in zip(questions, requests, refusals, strict=True)]
        return ["" if taken else gr.skip(), sampling.seed, "", *(value for panel in panels for value in panel)]

    async def regenerate(self, request: gr.Request, *rest: Any) -> list[Any]:
        """Ask one panel's last prompt again, with a new seed unless the user holds on to the one in the field.

        Inputs: SamplingValues, PromptingValues, the panel's Question. Outputs: hint, its state, chat and notice.
        """
        wishes, parts = Wishes.take(rest)
        question = Question(*parts)
        last = question.state.last
        if last is None or question.control.is_open:
            return [gr.skip()] * 4
        earlier = question._replace(state=question.state.without_last())
        try:
            sampling = read_sampling(wishes.sampling, self.entrance.limits)
            self._check_texts(last.prompt, [question])
            again = self._request(earlier, new_request_id(), last.prompt, sampling, wishes.prompting)
            check_conversation(again.messages, self.entrance.limits)
            self.entrance.gate.admit(self.entrance.visitor(request), [again])
        except NOT_TAKEN as error:
            return [view.hint(str(error)), *[gr.skip()] * 3]
        return ["", *_open(earlier, again, "")]

    async def stop(self, *panels: Any) -> list[Any]:
        """Inputs: state and control of each panel to stop. Outputs: state and chat of each, which a running stream
        paints itself."""
        pairs = zip(panels[::2], panels[1::2], strict=True)
        return [value for state, control in pairs for value in _stopped(state, control)]

    async def clear(self, *controls: StreamControl) -> list[Any]:
        """Inputs: the controls of the panels to clear. Outputs: state, chat and notice of each."""
        return [value for control in controls for value in _cleared(control)]

    async def choose_model(self, model_id: str, system: str, default_system: str) -> list[Any]:
        """The history stays; the system prompt follows the model unless the user has written one.

        Inputs: model id, system prompt, the former model's default. Outputs: system prompt, default, about line.
        """
        spec = self.registry.get(model_id)
        own = spec.prompt.default_system
        text: dict[str, Any] = {"value": own} if system == default_system else {}
        about = about_place(spec, PanelPlace(), self.pool)
        return [gr.update(**text, **system_properties(spec)), own, about]

    async def add_panel(self, shown: Sequence[bool]) -> list[Any]:
        """Inputs: which panels are shown. Outputs: the same, then `_layout`."""
        first = shown.index(False) if False in shown else None
        return _layout([is_shown or index == first for index, is_shown in enumerate(shown)])

    async def remove_panel(self, index: int, shown: Sequence[bool], control: StreamControl) -> list[Any]:
        """Inputs: which panels are shown, the panel's control. Outputs: state, chat, notice, then as `add_panel`."""
        if sum(shown) == 1:
            return [*[gr.skip()] * 3, *_layout(shown)]
        return [*_cleared(control), *_layout([is_shown and i != index for i, is_shown in enumerate(shown)])]

    async def refresh_menus(self, *rest: Any) -> list[Any]:
        """Inputs: every panel's model, then every panel's place. Outputs: the menu of every panel, its about line, as
        things stand now."""
        menu = gr.update(choices=menu_choices(self.registry, self.pool))
        panels = zip(rest[: len(rest) // 2], rest[len(rest) // 2 :], strict=True)
        abouts = [about_place(self.registry.get(model_id), place, self.pool) for model_id, place in panels]
        return [*[menu] * len(abouts), *abouts]

    def _system(self, question: Question) -> str:
        return sendable_system(self.registry.get(question.model_id), question.system)

    async def _admit(
        self,
        request: gr.Request,
        prompt: str,
        asked: Sequence[Question | None],
        sampling: SamplingParams,
        prompting: PromptingValues,
    ) -> tuple[list[GenerationRequest | None], list[str]]:
        """The requests of a turn that is taken, and why single panels refuse theirs. Raises what NOT_TAKEN names."""
        visitor, turn_id = self.entrance.visitor(request), new_request_id()
        self.entrance.gate.require(visitor)  # before a prompt of theirs costs anything
        self._check_texts(prompt, asked)
        requests = [
            self._request(question, turn_id, prompt, sampling, prompting) if question else None for question in asked
        ]
        refusals = await asyncio.gather(*(self._refusal(*each) for each in zip(asked, requests, strict=True)))
        taken = [each for each, refusal in zip(requests, refusals, strict=True) if each and not refusal]
        self.entrance.gate.admit(visitor, taken)
        return requests, refusals

    def _check_texts(self, prompt: str, questions: Sequence[Question | None]) -> None:
        """Raises PromptError if the prompt, a system prompt or a template cannot be sent, nor go to the browser."""
        texts = {"Prompt": prompt}
        for number, question in enumerate(questions, 1):
            if question:
                texts[f"System prompt of panel {number}"] = self._system(question)
                texts[f"Template of panel {number}"] = question.template_text or ""
        for name, text in texts.items():
            if sentence := half_character(text):
                raise PromptError(f"{name}: {sentence}.")
        check_texts(texts, self.entrance.limits)

    def _request(
        self, question: Question, turn_id: str, prompt: str, sampling: SamplingParams, prompting: PromptingValues
    ) -> GenerationRequest:
        messages = question.state.messages(self._system(question), prompt)
        endpoint = place_of(question.place, question.model_id, self.pool.elsewhere).endpoint
        adapter = question.adapter.use(question.model_id, 1.0 if question.scale is None else question.scale)
        return GenerationRequest(
            turn_id=turn_id,
            model_id=question.model_id,
            adapter=None if endpoint else adapter,
            endpoint=endpoint,
            messages=messages,
            options=prompting.options(question.template_text),
            sampling=sampling,
        )

    async def _expect(self, requests: Sequence[GenerationRequest]) -> None:
        """Announce the requests of one turn, before the first of them takes another's room."""
        try:
            await asyncio.to_thread(self.pool.expect, requests)
        except PlaygroundError:
            return  # each stream says so in its own panel

    async def _refusal(self, question: Question | None, request: GenerationRequest | None) -> str:
        """Why this cannot become a prompt, or "". Other errors are the stream's to meet: it shows them in the turn."""
        if question is None or request is None:
            return ""
        try:
            check_turns(len(question.state.turns) + 1, self.entrance.limits)
            check_conversation(request.messages, self.entrance.limits)
            encoder = await asyncio.wait_for(self.pool.encoder(request.model_id), CHECK_S)
            longest = request.sampling.max_new_tokens
            await asyncio.to_thread(encoder.encode, request.messages, request.options, longest)
        except ContextFullError as error:
            return "" if request.endpoint and request.endpoint.messages_only else str(error)
        except PromptError as error:
            return str(error)
        except Exception:
            return ""
        return ""


def _open(question: Question, request: GenerationRequest | None, refusal: str) -> list[Any]:
    """The panel's state, chat and notice with the request as its open turn, or with the refusal."""
    if request is None or question.control.is_open:
        return [gr.skip()] * 3
    if refusal:
        state = question.state.refuse(refusal)
    else:
        state = question.state.submit(request)
        question.control.open()
    return [state, view.chat(state), view.notice(state)]


def _stopped(state: PanelState, control: StreamControl) -> list[Any]:
    """A turn whose stream never came, for the server had no room for it, is ended here."""
    if control.say("stop") or not state.is_busy:
        return [gr.skip()] * 2
    stopped = state.stop()
    return [stopped, view.chat(stopped)]


def _cleared(control: StreamControl) -> list[Any]:
    """A running stream clears the panel itself, as its last act."""
    if control.say("clear"):
        return [gr.skip(), gr.skip(), ""]
    return [PanelState(), [], ""]


def _layout(shown: Sequence[bool]) -> list[Any]:
    """Which panels are shown, their columns, their remove buttons, the add button."""
    return [list(shown), *(gr.Column(visible=is_shown) for is_shown in shown), *buttons(shown)]


def buttons(shown: Sequence[bool]) -> list[gr.Button]:
    """The remove buttons, the add button."""
    return [*(gr.Button(interactive=sum(shown) > 1) for _ in shown), gr.Button(interactive=not all(shown))]


def sendable_system(spec: ModelSpec, system: str) -> str:
    """The system prompt as far as the model's format takes one."""
    return system if spec.prompt.system_role else ""


def groups(kind: Any, values: Sequence[Any]) -> list[Any]:
    """Flat event inputs as one `kind` a panel."""
    size = len(kind._fields)
    return [kind(*values[start : start + size]) for start in range(0, len(values), size)]

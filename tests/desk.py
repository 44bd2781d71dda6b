"""A session's desk: what Gradio would hold for two panels, on a scripted pool, for tests of the handlers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import gradio as gr
from fakes import FakePool, Script, spec
from starlette.requests import Request

from model_registry.registry import Registry
from playground.admission.gate import Gate
from playground.limits import OPEN, Limits
from playground.ui.adapter_state import PanelAdapter
from playground.ui.elsewhere.place import PanelPlace
from playground.ui.handlers import Handlers
from playground.ui.lens.glance import Watched
from playground.ui.lens.handlers import LensHandlers
from playground.ui.lens.prompting import PromptingValues
from playground.ui.lens.template_editor import PanelTemplate, TemplateHandlers
from playground.ui.pace import StreamControl
from playground.ui.sampling import SamplingValues
from playground.ui.state import PanelState
from playground.ui.streaming import Streaming
from playground.ui.visitor import Entrance

SAMPLING = SamplingValues(0.7, 0.95, 0, 1.0, 64, "", 42, False)
SKIP = gr.skip()


def asked_from(address: str, session: str = "desk", *forwarded: str) -> gr.Request:
    """An event as Gradio hands it on; `forwarded` are the lines of X-Forwarded-For."""
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return gr.Request(Request({"type": "http", "headers": headers, "client": (address, 1)}), session_hash=session)


class Desk:
    """Two panels and what a session would hold for them; plays the part of Gradio."""

    def __init__(self, limits: Limits = OPEN, **scripts: Script) -> None:
        specs = [spec("a", default_system="I am A."), spec("b"), spec("nosys", system_role=False)]
        self.pool = FakePool(Registry(specs), scripts)
        self.entrance = Entrance(Gate(limits))
        self.request = asked_from("192.0.2.1")
        self.handlers = Handlers(self.pool.registry, self.pool, self.entrance)  # type: ignore[arg-type]
        self.streaming = Streaming(self.pool, self.entrance)  # type: ignore[arg-type]
        self.templates = TemplateHandlers(self.pool, True, limits)  # type: ignore[arg-type]
        self.lens = LensHandlers(self.pool.registry, self.pool, self.templates, limits)  # type: ignore[arg-type]
        self.models = ["a", "b"]
        self.systems = ["", ""]
        self.shown = [True, True]
        self.states = [PanelState(), PanelState()]
        self.controls = [StreamControl(), StreamControl()]
        self.notices = ["", ""]
        self.adapters = [PanelAdapter(), PanelAdapter()]
        self.scales = [1.0, 1.0]
        self.written = [PanelTemplate(), PanelTemplate()]
        self.places = [PanelPlace(), PanelPlace()]
        self.watched = [Watched("a"), Watched("b")]
        self.prompting = PromptingValues("plain", "refuse")
        self.prompt, self.seed, self.hint = "", 0, ""

    def question(self, index: int) -> list[Any]:
        request = [self.models[index], self.systems[index], self.adapters[index], self.scales[index]]
        return [self.states[index], self.controls[index], *request, self.written[index], self.places[index]]

    async def send(self, prompt: str, sampling: SamplingValues = SAMPLING) -> None:
        self.prompt = prompt
        questions = [part for index in range(2) for part in self.question(index)]
        values = await self.handlers.start_turn(
            self.request, prompt, self.shown, *sampling, *self.prompting, *questions
        )
        for name, value in zip(("prompt", "seed", "hint"), values[:3], strict=True):
            if value != SKIP:
                setattr(self, name, value)
        for index in range(2):
            self.put(index, values[3 + 3 * index : 6 + 3 * index])

    async def regenerate(self, index: int, sampling: SamplingValues = SAMPLING) -> list[Any]:
        return await self.handlers.regenerate(self.request, *sampling, *self.prompting, *self.question(index))

    def glance(
        self, index: int, mode: str = "Prompt", is_open: bool = True, with_ids: bool = False, every_turn: bool = False
    ) -> list[Any]:
        watched = self.watched[index]
        watched.is_open, watched.heard = is_open, None if is_open else watched.heard
        shown = [mode, with_ids, every_turn, self.states[index], self.models[index], self.systems[index]]
        return [*shown, self.written[index], self.places[index], self.watched[index]]

    async def look(self, typed: str, **glance: Any) -> str:
        """The first panel's lens, as it is while this is being typed."""
        (markup,) = await self.lens.looks(typed, SAMPLING.max_new_tokens, *self.prompting, *self.glance(0, **glance))
        return markup

    async def key(self, typed: str) -> list[Any]:
        """As `follow`, by the way of a key."""
        panels = [part for index in range(2) for part in (self.states[index], self.watched[index])]
        return await self.lens.follow_key(self.shown, typed, *panels)

    async def follow(self, typed: str, **glance: Any) -> list[str]:
        """The caution, then the lens of each panel."""
        glances = [part for index in range(2) for part in self.glance(index, **glance)]
        return await self.lens.follow(self.shown, typed, SAMPLING.max_new_tokens, *self.prompting, *glances)

    async def stop(self, *panels: int) -> None:
        """Press Stop in these."""
        asked = [part for index in panels for part in (self.states[index], self.controls[index])]
        values = await self.handlers.stop(*asked)
        for state, index in zip(values[::2], panels, strict=True):
            if state != SKIP:
                self.states[index] = state

    def put(self, index: int, values: list[Any]) -> None:
        state, _chat, notice = values
        if state != SKIP:
            self.states[index] = state
        if notice != SKIP:
            self.notices[index] = notice

    async def stream(self, index: int) -> list[Any]:
        """Runs the panel's stream to its end; the chats that were painted."""
        paints = []
        events = self.streaming.panel(self.request, self.states[index], self.controls[index], self.shown)
        async with aclosing(events) as outputs:  # type: ignore[type-var]
            async for state, chat in outputs:
                if state != SKIP:
                    self.states[index] = state
                paints.append(chat)
        return paints

    async def answer(self) -> None:
        await asyncio.gather(self.stream(0), self.stream(1))

    async def until_running(self, model_id: str) -> None:
        async with asyncio.timeout(5):
            while not self.pool.running[model_id]:
                await asyncio.sleep(0.01)

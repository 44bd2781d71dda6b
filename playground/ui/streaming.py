"""One panel's answer, from the engine to the screen, painted on a clock.

The stream is the only writer of its panel's state while it runs; what it cannot do ends as a sentence in its own
panel. Knows no other panel. Wired by `events`, one event a panel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from playground.admission.gate import Events
from playground.errors import PlaygroundError
from playground.types import LoadProgress, StreamEvent, Waiting
from playground.ui import view
from playground.ui.pace import Command, Inbox, StreamControl, paced
from playground.ui.state import PanelState
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

PAINT_S = 0.05
PAINT_MANY_S = 0.1
MANY_PANELS = 2
MANY_MESSAGES = 20

UNEXPECTED = "Unexpected error while answering: the log has the details."
NO_END = "The engine stopped in the middle of its answer without saying why."

log = logging.getLogger(__name__)


class PanelStream:
    """Folds one stream into one panel's state. `progress` is its place in the line, or how far the
    model's loading is; None once it speaks."""

    def __init__(self, state: PanelState) -> None:
        self.state = state
        self.progress: Waiting | LoadProgress | None = None
        self._begun = time.monotonic()

    def fold(self, batch: Iterable[StreamEvent | Command]) -> None:
        for event in batch:
            if event == "stop":
                self.state = self.state.stop()
            elif event == "clear":
                self.state = self.state.clear()
            elif isinstance(event, Waiting):
                self.progress = event if event.position else None
            elif isinstance(event, LoadProgress):
                self.progress = event
            else:
                self.progress, self.state = None, self.state.fold(event)

    def outputs(self) -> tuple[PanelState, view.ChatMessages]:
        return self.state, view.chat(self.state, time.monotonic() - self._begun, self.progress)


@dataclass(frozen=True)
class Streaming:
    """`entrance`: what each stream comes through."""

    pool: Pool
    entrance: Entrance

    async def panel(
        self, request: gr.Request, state: PanelState, control: StreamControl, shown: Sequence[bool]
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Answer the panel's open turn, if it has one that nobody answers yet, once it has its place.

        Inputs: the panel's state and control, which panels are shown. Outputs: its state, its chat.
        """
        inbox = control.claim()
        if inbox is None:
            yield gr.skip(), gr.skip()
            return
        try:
            stream = PanelStream(state)
            events = partial(self.entrance.gate.stream, self.entrance.visitor(request), events=self.pool.stream)
            async with aclosing(_answer(events, stream, inbox, _interval(state, shown))) as paints:
                async for _ in paints:
                    yield stream.outputs()
        finally:
            control.close()


async def _answer(events: Events, stream: PanelStream, inbox: Inbox, interval_s: float) -> AsyncGenerator[None, None]:
    """One step a paint, until the turn is closed; its own errors close it too."""
    yield
    request = stream.state.turns[-1].request
    try:
        async with aclosing(paced(events(request), inbox, interval_s)) as batches:
            async for batch in batches:
                stream.fold(batch)
                if not stream.state.is_busy:
                    break
                yield
        stream.state = stream.state.fail(NO_END)
    except PlaygroundError as error:
        stream.state = stream.state.fail(str(error))
    except Exception:
        log.exception("request %s to %s", request.request_id, request.model_id)
        stream.state = stream.state.fail(UNEXPECTED)
    yield


def _interval(state: PanelState, shown: Sequence[bool]) -> float:
    many = sum(shown) > MANY_PANELS or 2 * len(state.turns) > MANY_MESSAGES
    return PAINT_MANY_S if many else PAINT_S

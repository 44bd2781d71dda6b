"""Token probabilities of a panel's last answer: asked for by a button, shown under the chat, gone with the answer.

The engine reads prompt and answer once more, which may take long, so that runs in an event of its own beside the
answers of others. What is shown is always of the last answer, or nothing is. Drawn by `panel`, wired by `events`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from playground.errors import EngineBusyError, PlaygroundError
from playground.types import ScoredPiece
from playground.ui.lens import probability_view
from playground.ui.state import PanelState, Turn
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

NOT_YET = "There is no finished answer in this panel yet: send a prompt first."
NOT_KNOWN = (
    "The tokens of this answer are not known: it ended before the first, or its engine does not tell them. Press "
    "Regenerate to have another."
)
NONE_OF_SERVER = "{} did not tell the probabilities of this answer: not every server does."
UNEXPECTED = "Unexpected error while reading the answer: the log has the details."

log = logging.getLogger(__name__)


class Showing:
    """What is shown, or will be when it is there; one object a panel and session."""

    def __init__(self) -> None:
        self._request_id = ""
        self._scoring: asyncio.Future[tuple[ScoredPiece, ...]] | None = None

    @property
    def is_open(self) -> bool:
        return self._request_id != ""

    def shows(self, turn: Turn | None) -> bool:
        return turn is not None and self._request_id == turn.request.request_id

    def open(self, turn: Turn) -> None:
        self.close()
        self._request_id = turn.request.request_id

    def wait_for(self, scoring: asyncio.Future[tuple[ScoredPiece, ...]]) -> None:
        """It is given up when this closes."""
        self._scoring = scoring

    def close(self) -> None:
        if self._scoring is not None:
            self._scoring.cancel()
        self._request_id, self._scoring = "", None


@dataclass(frozen=True)
class Probabilities:
    """`showing` is the panel's `Showing`."""

    button: gr.Button
    view: gr.HTML
    showing: gr.State


class Shown(NamedTuple):
    """`Panel.shown_odds`: what tells whether what is shown may stay."""

    showing: Showing
    state: PanelState
    model_id: str


def draw_probabilities_view() -> gr.HTML:
    return gr.HTML(elem_classes="odds-view", js_on_load=None, apply_default_css=False)


def draw_probabilities_button(view: gr.HTML) -> Probabilities:
    button = gr.Button("Token probabilities", size="sm", min_width=0, interactive=False, elem_classes="odds-button")
    return Probabilities(button, view, gr.State(Showing()))


@dataclass(frozen=True)
class ProbabilityHandlers:
    pool: Pool
    entrance: Entrance = field(default_factory=Entrance)

    async def press(self, request: gr.Request, showing: Showing, state: PanelState) -> AsyncIterator[Any]:
        """Show the last answer's, or close what is shown. Inputs: the panel's Showing, its state. Outputs: the view."""
        turn = state.last
        if showing.is_open:
            showing.close()
            yield ""
        elif turn is None or turn.is_open:
            yield probability_view.refusal(NOT_YET)
        else:
            showing.open(turn)
            if turn.request.endpoint:
                yield _of_server(turn)
                return
            if not turn.token_ids:
                yield probability_view.refusal(NOT_KNOWN)
                return
            try:
                self.entrance.gate.count(self.entrance.visitor(request))
            except EngineBusyError as error:
                yield probability_view.refusal(str(error))
                return
            yield probability_view.waiting()
            markup = await self._scored(showing, turn)
            yield markup if markup and showing.shows(turn) else gr.skip()

    async def follow(self, *rest: Any) -> list[Any]:
        """Close what is of another answer, or of a model that the panel has left.

        Inputs: Shown. Outputs: view, button.
        """
        showing, state, model_id = Shown(*rest)
        turn = state.last
        is_there = turn is not None and not turn.is_open and turn.request.model_id == model_id
        stays = is_there and showing.shows(turn)
        if not stays:
            showing.close()
        return [gr.skip() if stays else "", gr.Button(interactive=is_there)]

    async def close(self, *showings: Showing) -> list[Any]:
        """The panels are cleared. Inputs: the Showing of each. Outputs: view, button of each."""
        for showing in showings:
            showing.close()
        return [value for _ in showings for value in ("", gr.Button(interactive=False))]

    async def _scored(self, showing: Showing, turn: Turn) -> str:
        """The view, or the sentence in its place; "" where it was closed meanwhile."""
        scoring = asyncio.ensure_future(self.pool.score(turn.request, turn.token_ids))
        showing.wait_for(scoring)
        try:
            await asyncio.wait([scoring])
            return "" if scoring.cancelled() else probability_view.odds(turn, scoring.result())
        except PlaygroundError as error:
            return probability_view.refusal(str(error))
        except Exception:
            log.exception("scoring request %s to %s", turn.request.request_id, turn.request.model_id)
            return probability_view.refusal(UNEXPECTED)
        finally:
            scoring.cancel()


def _of_server(turn: Turn) -> str:
    """What a server told while it answered: it is not asked again."""
    if turn.scores:
        return probability_view.odds(turn, turn.scores)
    address = turn.request.endpoint.address if turn.request.endpoint else ""
    return probability_view.refusal(NONE_OF_SERVER.format(address))

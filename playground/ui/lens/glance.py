"""What a panel's lens is made from, and what is kept of it from one key to the next.

Knows no gradio and no engine. Kept in `gr.State`; called by the lens' handlers.
"""

from __future__ import annotations

from typing import NamedTuple

from playground.ui.elsewhere.place import PanelPlace
from playground.ui.lens.look import Mode
from playground.ui.lens.prompting import PromptingValues
from playground.ui.lens.template_editor import PanelTemplate
from playground.ui.state import PanelState


class Typing(NamedTuple):
    """What is the same for all panels: the text, the longest answer (None in an emptied field), and Prompting."""

    typed: str
    answer_tokens: float | None
    control: str
    when_full: str

    @property
    def prompting(self) -> PromptingValues:
        return PromptingValues(self.control, self.when_full)  # type: ignore[arg-type]


class Watched:
    """What a panel's lens was last made from, so that a key need send no more than the text; one a panel and session.

    A browser reads each component that is an input of an event, with all that it holds: that took longer than all else.
    Of two pictures that are being made at once, the one that was begun last is shown.
    """

    def __init__(self, model_id: str) -> None:
        """`model_id`: what the panel's menu starts with."""
        self.model_id = model_id
        self.typing = Typing("", None, "plain", "refuse")
        self.glance: Glance | None = None
        self.is_open = False
        """Whether anybody looks; only opening and closing it says so, for other events come late."""
        self.heard: str | None = None
        """The text of the key that was heard last, also while the lens was closed."""
        self._pictures = 0

    def begin(self, typing: Typing, glance: Glance) -> int:
        """A picture is being made from these; the number returned tells `is_last`."""
        self.model_id, self.typing, self.glance = glance.model_id, typing, glance
        self._pictures += 1
        return self._pictures

    def is_last(self, picture: int) -> bool:
        return picture == self._pictures

    def open(self, typed: str) -> None:
        self.is_open, self.heard = True, typed

    def newest(self, typing: Typing) -> Typing:
        """With the text of the key that was heard last, where keys are followed: what another event brings was read
        when it was sent, and may come behind them. Under a template keys are not heard."""
        if not self.is_open:
            return typing
        if self.heard is None or self.glance is None or self.glance.mode == "Template":
            self.heard = typing.typed
        return typing._replace(typed=self.heard)

    def close(self) -> None:
        self.is_open, self.glance = False, None
        self._pictures += 1


class Glance(NamedTuple):
    """`Panel.glance`: what a panel's lens is made from."""

    mode: Mode
    with_ids: bool
    every_turn: bool
    state: PanelState
    model_id: str
    system: str
    template: PanelTemplate
    place: PanelPlace
    watched: Watched

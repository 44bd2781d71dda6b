"""What a panel knows of its adapter: the one in use, and those that were typed in and accepted.

Frozen values with verbs that return a new one, like a panel's turns, and the count that tells which choice came last.
Knows no gradio and no engine. Kept in `gr.State`; called by the handlers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from playground.adapters.facts import AdapterChoice, CheckedAdapter
from playground.types import AdapterUse

NO_ADAPTER = "none"
ELSEWHERE = "typed in"
"""Entries of the menu that are no adapter. No adapter can be called so: one is reserved, the other has a space."""


@dataclass(frozen=True, slots=True)
class TypedAdapter:
    """One that no menu offered: `text` is what was typed, by which it is found again."""

    model_id: str
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class PanelAdapter:
    """`value` is the menu's entry of what is in use, `checked` what stands behind it: None for the plain model."""

    value: str = NO_ADAPTER
    checked: CheckedAdapter | None = None
    typed: tuple[TypedAdapter, ...] = ()

    def use(self, model_id: str, scale: float) -> AdapterUse | None:
        """What a request to this model says; an adapter that was checked for another model is none for this one."""
        checked = self.checked
        return checked.use(scale) if checked and checked.model_id == model_id else None

    def plain(self) -> PanelAdapter:
        return replace(self, value=NO_ADAPTER, checked=None)

    def accept(self, text: str, checked: CheckedAdapter, label: str = "") -> PanelAdapter:
        """Use what was found by `text`. With a label the menu goes on to offer it, instead of an older one like it."""
        if not label:
            return replace(self, value=text, checked=checked)
        mine = TypedAdapter(checked.model_id, text, label)
        others = [
            each for each in self.typed if each.model_id != mine.model_id or (each.text != text and each.label != label)
        ]
        return PanelAdapter(text, checked, (*others, mine))


class Choosing:
    """Tells of two choices in one panel which came last; one object a panel and session.

    A check may take as long as a download, and the user may choose something else meanwhile: then that counts.
    """

    def __init__(self) -> None:
        self._last = 0

    def begin(self) -> int:
        self._last += 1
        return self._last

    def is_last(self, ticket: int) -> bool:
        return ticket == self._last


def typed_for(model_id: str, panels: Iterable[PanelAdapter]) -> list[TypedAdapter]:
    """What was accepted for this model in any panel of the session, each text once."""
    found = [each for panel in panels for each in panel.typed if each.model_id == model_id]
    return [*{each.text: each for each in found}.values()]


def menu(offered: Iterable[AdapterChoice], typed: Iterable[TypedAdapter]) -> list[tuple[str, str]]:
    """(label, value) of every entry, each value once."""
    entries = {NO_ADAPTER: "No adapter"}
    entries |= {choice.id: choice.name for choice in offered}
    entries |= {each.text: each.label for each in typed if each.text not in entries}
    entries[ELSEWHERE] = "From the Hub or a folder …"
    return [(label, value) for value, label in entries.items()]

"""Compare with base: which panel gets the plain model, and what stays there."""

from __future__ import annotations

from typing import Any

import pytest
from desk import SKIP
from fakes import FakePool, Script, checked_adapter, spec

from model_registry.registry import Registry
from playground.adapters.facts import AdapterChoice
from playground.ui.adapter_state import Choosing, PanelAdapter
from playground.ui.adapters import NAMES, AdapterHandlers
from playground.ui.comparing import Comparing, candidates, next_panel
from playground.ui.elsewhere.box import NAMES as PLACE
from playground.ui.pace import StreamControl

PANELS = 4
CHANGED = ("column", "model", "system", "default_system", "model_about", *NAMES, *(f"place_{name}" for name in PLACE))


@pytest.mark.parametrize(
    ("index", "shown", "target"),
    [
        (0, [True, True, False, False], 1),
        (1, [True, True, False, False], 2),
        (0, [True, False, True, False], 1),
        (3, [True, True, True, True], 2),
        (3, [True, False, False, True], 1),
        (3, [False, True, True, True], 0),
    ],
)
def test_the_next_panel_is_to_the_right_or_the_first_hidden_or_to_the_left(
    index: int, shown: list[bool], target: int
) -> None:
    assert next_panel(index, shown) == target
    assert target in candidates(index, PANELS)


class Page:
    def __init__(self) -> None:
        registry = Registry([spec("a", default_system="I am A."), spec("nosys", system_role=False)])
        self.pool = FakePool(registry, {"a": Script(choices=[AdapterChoice("formal", "Formal")])})
        self.controls = [StreamControl() for _ in range(PANELS)]
        self.choosing = [Choosing() for _ in range(PANELS)]
        self.chosen = [PanelAdapter().accept("formal", checked_adapter("a", "formal")) for _ in range(PANELS)]

    async def compare(
        self, index: int, shown: list[bool], model_id: str = "a", system: str = "Mine."
    ) -> tuple[str, list[Any], list[dict[str, Any]]]:
        """The hint, what is shown and its buttons, and what changes in each panel that may be the next."""
        comparing = Comparing(AdapterHandlers(self.pool.registry, self.pool))  # type: ignore[arg-type]
        places = candidates(index, PANELS)
        known = [part for place in places for part in (self.controls[place], self.chosen[place], self.choosing[place])]
        hint, *values = await comparing.compare(index, shown, model_id, system, *known)
        layout, rest = values[: PANELS + 2], values[PANELS + 2 :]
        groups = [rest[start : start + len(CHANGED)] for start in range(0, len(rest), len(CHANGED))]
        panels: list[dict[str, Any]] = [{} for _ in range(PANELS)]
        for place, group in zip(places, groups, strict=True):
            panels[place] = {name: value for name, value in zip(CHANGED, group, strict=True) if value != SKIP}
        return hint, layout, panels


async def test_the_next_panel_gets_the_model_its_system_prompt_and_no_adapter() -> None:
    page = Page()
    ticket = page.choosing[1].begin()
    hint, (shown, *_), panels = await page.compare(0, [True, True, False, False])
    assert hint == ""
    assert shown == [True, True, False, False]
    assert [bool(panel) for panel in panels] == [False, True, False, False]
    right = panels[1]
    assert right["model"]["value"] == "a"
    assert (right["system"]["value"], right["default_system"]) == ("Mine.", "I am A.")
    assert "2.0 M parameters" in right["model_about"]
    assert right["chosen"].use("a", 1.0) is None
    assert [label for label, _ in right["menu"]["choices"]][:2] == ["No adapter", "Formal"]
    assert not right["tools"].visible
    assert not page.choosing[1].is_last(ticket), "a check that runs there is overtaken"


async def test_a_hidden_panel_is_shown() -> None:
    _, (shown, *_, add), panels = await Page().compare(1, [True, True, False, False])
    assert shown == [True, True, True, False]
    assert add.interactive
    assert panels[2]["column"].visible
    assert panels[2]["model"]["value"] == "a"


async def test_the_last_panel_takes_the_first_hidden_one_and_then_no_panel_can_be_added() -> None:
    _, (shown, *_, add), panels = await Page().compare(3, [True, False, True, True])
    assert shown == [True] * PANELS
    assert not add.interactive
    assert [bool(panel) for panel in panels] == [False, True, False, False]


async def test_while_the_next_panel_answers_nothing_changes_and_it_says_so() -> None:
    page = Page()
    page.controls[1].open()
    hint, layout, panels = await page.compare(0, [True, True, False, False])
    assert "Panel 2 is still answering" in hint
    assert layout == [SKIP] * len(layout)
    assert panels == [{}] * PANELS


async def test_a_system_prompt_that_no_browser_can_be_sent_is_not() -> None:
    hint, _, panels = await Page().compare(0, [True, True, False, False], system="half \ud83d")
    assert "half a character" in hint
    assert panels == [{}] * PANELS


async def test_a_model_without_system_prompt_disables_the_box_there_too() -> None:
    _, _, panels = await Page().compare(0, [True, True, False, False], "nosys", "mine")
    assert not panels[1]["system"]["interactive"]

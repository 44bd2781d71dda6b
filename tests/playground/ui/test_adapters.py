"""The handlers of a panel's adapter, on a scripted pool: choosing is checking, and nothing else changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from desk import SKIP, Desk
from fakes import Script

from playground.adapters.facts import AdapterChoice
from playground.errors import AdapterError, DownloadError
from playground.ui.adapter_state import ELSEWHERE, NO_ADAPTER, Choosing, PanelAdapter
from playground.ui.adapters import NAME_ONE, NAMES, NOTHING, UNEXPECTED, AdapterHandlers

Painted = dict[str, Any]

A = Script(
    choices=[AdapterChoice("formal", "Formal", "Says sir."), AdapterChoice("casual", "Casual")],
    refusals={
        "o/bad": AdapterError("adapter_config.json of o/bad: <no>."),
        "o/gone": DownloadError("There is no o/gone on the Hub."),
        "o/bug": RuntimeError("a secret"),
        "casual": AdapterError("casual: its file has changed."),
    },
    warnings={"o/odd": ["It names another base."]},
    inspections={"o/slow": 0.2},
)


class Chooser:
    """One panel's adapter controls, as Gradio would hold them."""

    def __init__(self, script: Script = A, model_id: str = "a") -> None:
        self.desk = Desk(a=script, b=Script())
        self.own = AdapterHandlers(self.desk.pool.registry, self.desk.pool)  # type: ignore[arg-type]
        self.model_id, self.chosen, self.choosing = model_id, PanelAdapter(), Choosing()
        self.others = [PanelAdapter()]

    async def choose(self, value: str) -> list[Painted]:
        return await self._paints(self.own.choose(value, *self._place()))

    async def type(self, text: str) -> list[Painted]:
        return await self._paints(self.own.use_typed(text, *self._place()))

    def _place(self) -> list[Any]:
        return [self.model_id, self.chosen, self.choosing, self.chosen, *self.others]

    async def _paints(self, steps: AsyncIterator[list[Any]]) -> list[Painted]:
        return [self.put(values) async for values in steps]

    def put(self, values: list[Any]) -> Painted:
        painted = {name: value for name, value in zip(NAMES, values, strict=True) if value != SKIP}
        self.chosen = painted.get("chosen", self.chosen)
        return painted


async def test_a_name_that_no_adapter_can_have_is_not_looked_for_nor_repeated() -> None:
    chooser = Chooser()
    (refused,) = await chooser.type("x" * 1_001)
    assert "at most 1,000 characters, and this has 1,001" in refused["notice"]
    assert "xxx" not in refused["notice"]


async def test_an_adapter_of_the_menu_is_inspected_and_then_in_use() -> None:
    chooser = Chooser()
    busy, done = await chooser.choose("formal")
    assert "Inspecting Formal …" in busy["notice"]
    assert "chosen" not in busy, "what was in use stays so"
    assert done["menu"]["value"] == chooser.chosen.value == "formal"
    assert "Says sir." in done["about"]
    assert done["notice"] == ""
    assert done["tools"].visible
    assert "scale" not in done, "the user's scale is for whatever adapter is there"
    assert chooser.desk.pool.checked == [("a", "formal")]
    assert chooser.chosen.use("a", 1.0) is not None


async def test_what_is_typed_is_offered_from_then_on_and_found_again_by_what_was_typed() -> None:
    chooser = Chooser()
    _, done = await chooser.type("  o/name@v1 ")
    assert done["text"] == ""
    assert not done["field"].visible
    labels = [label for label, _ in done["menu"]["choices"]]
    assert labels[:3] == ["No adapter", "Formal", "Casual"]
    assert labels[3].startswith("o/name@")
    assert done["menu"]["value"] == "o/name@v1"
    await chooser.choose(NO_ADAPTER)
    await chooser.choose("o/name@v1")
    assert chooser.desk.pool.checked == [("a", "o/name@v1")] * 2


async def test_what_is_typed_and_offered_anyway_gets_no_second_entry() -> None:
    chooser = Chooser()
    _, done = await chooser.type("formal")
    assert chooser.chosen.typed == ()
    assert done["menu"]["value"] == "formal"


@pytest.mark.parametrize("text", ["o/bad", "o/gone", "o/bug"])
async def test_a_refusal_leaves_what_was_in_use_and_the_typed_text(text: str) -> None:
    chooser = Chooser()
    await chooser.choose("formal")
    before = chooser.chosen
    _, refused = await chooser.type(text)
    assert chooser.chosen == before
    assert set(refused) == {"menu", "notice"}, "the field stays open with its text, and what is in use as it is"
    assert refused["menu"]["value"] == "formal"
    assert 'role="alert"' in refused["notice"]
    words = {"o/bad": "of o/bad: &lt;no&gt;.", "o/gone": "no o/gone on the Hub", "o/bug": UNEXPECTED}
    assert words[text] in refused["notice"]
    assert "secret" not in refused["notice"]


async def test_the_menu_goes_back_when_one_of_its_own_is_refused() -> None:
    chooser = Chooser()
    _, refused = await chooser.choose("casual")
    assert refused["menu"]["value"] == NO_ADAPTER
    assert "its file has changed" in refused["notice"]


@pytest.mark.parametrize(("text", "words"), [("", NAME_ONE), ("  ", NAME_ONE), ("o/\ud83d", "half a character")])
async def test_what_names_nothing_is_not_even_asked_for(text: str, words: str) -> None:
    chooser = Chooser()
    (refused,) = await chooser.type(text)
    assert words in refused["notice"]
    refused["notice"].encode()
    assert chooser.desk.pool.checked == []


async def test_warnings_are_shown_and_hinder_nothing() -> None:
    chooser = Chooser()
    _, done = await chooser.type("o/odd")
    assert "It names another base." in done["about"]
    assert chooser.chosen.use("a", 1.0) is not None


async def test_the_field_opens_and_closes_without_a_change() -> None:
    chooser = Chooser()
    await chooser.choose("formal")
    (opened,) = await chooser.choose(ELSEWHERE)
    assert opened["field"].visible
    assert chooser.chosen.value == "formal"
    closed = chooser.put(await chooser.own.cancel(chooser.chosen, chooser.choosing))
    assert not closed["field"].visible
    assert closed["menu"]["value"] == "formal"
    assert "chosen" not in closed


async def test_no_adapter_hides_what_is_for_adapters() -> None:
    chooser = Chooser()
    await chooser.choose("formal")
    (plain,) = await chooser.choose(NO_ADAPTER)
    assert chooser.chosen.use("a", 1.0) is None
    assert not plain["tools"].visible
    assert (plain["about"], plain["notice"], plain["scale"]) == ("", "", 1)


async def during_a_check(chooser: Chooser) -> AsyncIterator[list[Any]]:
    steps = chooser.own.use_typed("o/slow", *chooser._place())
    chooser.put(await anext(steps))
    return steps


async def test_a_later_choice_overtakes_a_check_that_lasts() -> None:
    chooser = Chooser()
    steps = await during_a_check(chooser)
    await chooser.choose("formal")
    assert [values async for values in steps] == [NOTHING]
    assert chooser.chosen.value == "formal"


async def test_so_do_giving_up_and_another_model() -> None:
    chooser = Chooser()
    steps = await during_a_check(chooser)
    chooser.put(await chooser.own.cancel(chooser.chosen, chooser.choosing))
    assert [values async for values in steps] == [NOTHING]
    steps = await during_a_check(chooser)
    chooser.model_id = "b"
    chooser.put(await chooser.own.change_model(*chooser._place()))
    assert [values async for values in steps] == [NOTHING]
    assert chooser.chosen.value == NO_ADAPTER


async def test_two_panels_check_at_the_same_time() -> None:
    script = Script(inspections={"o/slow": 30.0})
    slow, quick = Chooser(script), Chooser(script)
    quick.own = slow.own
    waits = asyncio.create_task(slow.type("o/slow"))
    await quick.type("o/quick")
    assert quick.chosen.value == "o/quick"
    assert not waits.done()
    waits.cancel()


async def test_another_model_goes_back_to_no_adapter_and_offers_its_own() -> None:
    chooser = Chooser()
    await chooser.type("o/name")
    chooser.model_id = "b"
    changed = chooser.put(await chooser.own.change_model(*chooser._place()))
    assert [value for _, value in changed["menu"]["choices"]] == [NO_ADAPTER, ELSEWHERE]
    assert changed["menu"]["value"] == NO_ADAPTER
    assert changed["scale"] == 1
    assert changed["notice"] == ""
    menu = await chooser.own.refresh_menu("a", chooser.chosen)
    assert "o/name" in [value for _, value in menu["choices"]], "it is there when the model comes back"


async def test_a_menu_that_is_opened_offers_what_was_typed_in_another_panel() -> None:
    chooser, other = Chooser(), Chooser()
    await other.type("o/name")
    menu = await chooser.own.refresh_menu("a", chooser.chosen, other.chosen)
    assert "o/name" in [value for _, value in menu["choices"]]


async def use(desk: Desk, index: int, text: str) -> None:
    checked = await desk.pool.adapter(desk.models[index], text)
    desk.adapters[index] = desk.adapters[index].accept(text, checked)


async def test_each_panel_asks_for_its_own_adapter_even_of_one_model() -> None:
    desk = Desk()
    desk.models = ["a", "a"]
    await use(desk, 0, "formal")
    await use(desk, 1, "casual")
    desk.scales = [1.0, 0.5]
    await desk.send("hi")
    assert desk.pool.preloaded == ["a", "a"]
    await desk.answer()
    assert [state.turns[0].answer for state in desk.states] == [
        "[formal × 1] Hello, world.",
        "[casual × 0.5] Hello, world.",
    ]


async def test_a_running_answer_keeps_its_adapter_and_the_next_turn_has_the_new_one() -> None:
    desk = Desk(a=Script(["one ", "two"], pause_s=0.05))
    desk.shown = [True, False]
    await use(desk, 0, "formal")
    await desk.send("hi")
    stream = asyncio.create_task(desk.stream(0))
    await desk.until_running("a")
    desk.adapters[0] = desk.adapters[0].plain()
    await stream
    assert desk.states[0].turns[0].answer == "[formal × 1] one two"
    await desk.send("again")
    await desk.stream(0)
    assert desk.states[0].turns[1].answer == "one two"


async def test_regenerating_uses_what_is_chosen_now() -> None:
    desk = Desk()
    desk.shown = [True, False]
    await desk.send("hi")
    await desk.stream(0)
    await use(desk, 0, "formal")
    desk.scales[0] = 0.25
    _, desk.states[0], *_ = await desk.regenerate(0)
    await desk.stream(0)
    assert desk.states[0].turns[-1].answer.startswith("[formal × 0.25]")


async def test_an_adapter_of_the_former_model_is_not_sent_to_the_new_one() -> None:
    """A prompt may come between the change of the model and that of its adapter."""
    desk = Desk()
    desk.shown = [True, False]
    await use(desk, 0, "formal")
    desk.models[0] = "b"
    await desk.send("hi")
    await desk.stream(0)
    assert desk.pool.requests[-1].adapter is None


async def test_an_adapter_that_fails_while_answering_is_an_error_of_that_turn() -> None:
    desk = Desk()
    await use(desk, 0, "formal")
    desk.pool.checked.clear()
    await desk.send("hi")
    await desk.answer()
    assert desk.states[0].turns[0].error == "formal was not inspected for a."
    assert desk.states[1].turns[0].answer == "Hello, world."

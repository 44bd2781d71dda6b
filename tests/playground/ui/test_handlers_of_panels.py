"""The handlers around an answer, on a scripted pool: models, system prompts, previews, menus and the layout."""

from __future__ import annotations

import asyncio

from desk import SKIP, Desk
from fakes import Script

from playground.types import LoadProgress
from playground.ui.pace import StreamControl
from playground.ui.state import PanelState


async def test_the_system_prompt_follows_the_model_unless_it_was_written_by_the_user() -> None:
    desk = Desk()
    box, own, _ = await desk.handlers.choose_model("a", "", "")
    assert (box["value"], own) == ("I am A.", "I am A.")
    box, own, _ = await desk.handlers.choose_model("b", "I am A.", "I am A.")
    assert (box["value"], own) == ("", "")
    box, own, _ = await desk.handlers.choose_model("a", "mine", "")
    assert own == "I am A."
    assert "value" not in box, "what the user wrote is not sent back: it may be what no JSON can carry"


async def test_choosing_a_model_says_what_a_prompt_to_it_would_start() -> None:
    desk = Desk(b=Script(state="local", detail="on this machine"))
    _, _, about = await desk.handlers.choose_model("b", "", "")
    assert "Loads on the next prompt" in about


async def test_a_cancelled_load_says_so_in_the_panel_and_can_be_asked_again() -> None:
    desk = Desk(a=Script([], loading=[LoadProgress("weights", 10**9, 4 * 10**9)], hangs=True))
    desk.shown = [True, False]
    await desk.send("hi")
    stream = asyncio.create_task(desk.stream(0))
    await desk.until_running("a")
    desk.pool.cancel("a")
    paints = await stream
    assert any("a: Loading weights · 1.0 of 4.0 GB" in str(paint) for paint in paints)
    assert "cancelled" in desk.states[0].turns[-1].error
    assert "Regenerate asks again." in str(paints[-1])
    desk.pool.scripts = {}
    _, state, *_ = await desk.regenerate(0)
    desk.states[0] = state
    await desk.stream(0)
    assert desk.states[0].turns[-1].answer == "Hello, world."


async def test_a_format_without_system_prompt_disables_the_box_and_sends_none() -> None:
    desk = Desk()
    box, _, _ = await desk.handlers.choose_model("nosys", "mine", "")
    assert "value" not in box
    assert not box["interactive"]
    assert "NOSYS has no system prompt" in box["info"]
    desk.models, desk.systems = ["nosys", "b"], ["mine", ""]
    await desk.send("hi")
    await desk.stream(0)
    assert [message.role for message in desk.pool.requests[0].messages] == ["user"]


async def test_panels_are_added_and_removed_down_to_one() -> None:
    desk = Desk()
    shown, *_, add = await desk.handlers.add_panel([True, True, False, False])
    assert shown == [True, True, True, False]
    assert add.interactive
    state, chat, notice, shown, *_ = await desk.handlers.remove_panel(0, shown, StreamControl())
    assert (state, chat, notice) == (PanelState(), [], "")
    assert shown == [False, True, True, False]
    *kept, shown, _c0, _c1, remove0, remove1, _add = await desk.handlers.remove_panel(1, [False, True], StreamControl())
    assert kept == [SKIP] * 3
    assert shown == [False, True]
    assert not remove0.interactive
    assert not remove1.interactive


async def test_the_menus_tell_the_state_of_each_model() -> None:
    desk = Desk(b=Script(state="download", detail="downloads 14.7 GB"))
    menu, other, *abouts = await desk.handlers.refresh_menus("a", "b", *desk.places)
    assert [label for label, _ in menu["choices"]] == ["A · ready", "B · downloads 14.7 GB", "NOSYS · ready"]
    assert "value" not in menu, "it must not undo a choice made in the meantime"
    assert other == menu
    assert "prompt" not in abouts[0]
    assert "Downloads 14.7 GB on the next prompt" in abouts[1]

"""The handlers on a scripted pool: who is asked what, who may write, and what stays where it is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from desk import SAMPLING, SKIP, Desk
from fakes import Script

from playground.errors import OutOfMemoryError
from playground.types import GenerationChunk, LoadProgress
from playground.ui import handlers as handlers_module
from playground.ui.handlers import STILL_ANSWERING
from playground.ui.state import PanelState
from playground.ui.streaming import NO_END, UNEXPECTED


async def test_one_prompt_goes_into_every_shown_panel() -> None:
    desk = Desk()
    await desk.send("  hello\n")
    assert (desk.prompt, desk.seed) == ("", 42)
    assert desk.pool.preloaded == ["a", "b"], "placed together"
    await desk.answer()
    assert [state.turns[0].prompt for state in desk.states] == ["  hello\n"] * 2
    assert [state.turns[0].answer for state in desk.states] == ["Hello, world."] * 2
    assert {request.sampling.seed for request in desk.pool.requests} == {42}


async def test_each_panel_keeps_its_own_history() -> None:
    desk = Desk(b=Script(["B"]))
    for prompt in ("one", "two"):
        await desk.send(prompt)
        await desk.answer()
    last = {request.model_id: [m.content for m in request.messages] for request in desk.pool.requests[-2:]}
    assert last == {"a": ["one", "Hello, world.", "two"], "b": ["one", "B", "two"]}


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t "])
async def test_an_empty_prompt_does_nothing_at_all(prompt: str) -> None:
    desk = Desk()
    await desk.send(prompt)
    assert desk.prompt == prompt
    assert desk.states == [PanelState(), PanelState()]
    assert await desk.stream(0) == [SKIP]
    assert desk.pool.requests == []


async def test_a_hidden_panel_is_not_asked() -> None:
    desk = Desk()
    desk.shown = [True, False]
    await desk.send("hi")
    await desk.answer()
    assert [request.model_id for request in desk.pool.requests] == ["a"]


async def test_a_prompt_too_long_for_one_panel_is_refused_there_alone() -> None:
    desk = Desk()
    desk.systems = ["s" * 900, ""]
    await desk.send("p" * 200)
    assert "tokens too long for A" in desk.notices[0]
    assert desk.states[0].turns == ()
    assert desk.prompt == ""
    await desk.answer()
    assert [request.model_id for request in desk.pool.requests] == ["b"]


async def test_a_prompt_that_no_panel_can_take_stays_in_the_box() -> None:
    desk = Desk()
    await desk.send("p" * 1200)
    assert desk.prompt == "p" * 1200
    assert all("tokens too long" in notice for notice in desk.notices)
    await desk.answer()
    assert desk.pool.requests == []


async def test_a_tokenizer_that_never_comes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers_module, "CHECK_S", 0.05)
    desk = Desk(b=Script(encoder_hangs=True))
    await desk.send("hi")
    await desk.stream(0)
    assert desk.states[0].turns[0].answer == "Hello, world."


async def test_two_models_never_wait_for_each_other() -> None:
    desk = Desk(b=Script([], hangs=True))
    await desk.send("hi")
    hanging = asyncio.create_task(desk.stream(1))
    await desk.stream(0)
    assert desk.states[0].turns[0].finish_reason == "stop"
    assert desk.states[1].is_busy
    await desk.stop(1)
    await asyncio.wait_for(hanging, 2)
    assert desk.states[1].turns[0].finish_reason == "abort"
    assert not desk.pool.running["b"]


async def test_stop_reaches_only_its_own_panel() -> None:
    desk = Desk(a=Script(["x"] * 3, hangs=True), b=Script(["y"] * 40, pause_s=0.01))
    await desk.send("hi")
    both = asyncio.gather(desk.stream(0), desk.stream(1))
    await desk.until_running("a")
    await asyncio.sleep(0.1)
    await desk.stop(0)
    await both
    first, second = (state.turns[0] for state in desk.states)
    assert (first.answer, first.finish_reason) == ("xxx", "abort")
    assert (second.answer, second.finish_reason) == ("y" * 40, "stop")


async def test_a_turn_whose_stream_never_came_is_stopped_or_cleared_all_the_same() -> None:
    desk = Desk()
    await desk.send("hi")
    await desk.stop(0)
    assert [state.is_busy for state in desk.states] == [False, True]
    assert desk.states[0].turns[0].finish_reason == "abort"
    desk.put(1, await desk.handlers.clear(desk.controls[1]))
    assert desk.states[1] == PanelState()
    for index in range(2):
        assert await desk.stream(index) == [SKIP], "late, for a turn that is over"
    await desk.send("again")
    await desk.answer()
    assert [state.turns[-1].finish_reason for state in desk.states] == ["stop", "stop"]


async def test_clearing_a_running_panel_stops_and_empties_it() -> None:
    desk = Desk(a=Script(["x"], hangs=True))
    await desk.send("hi")
    running = asyncio.create_task(desk.stream(0))
    await desk.until_running("a")
    assert await desk.handlers.clear(desk.controls[0]) == [SKIP, SKIP, ""]
    paints = await running
    assert desk.states[0] == PanelState()
    assert paints[-1] == []
    assert not desk.pool.running["a"]
    assert await desk.handlers.clear(desk.controls[0]) == [PanelState(), [], ""]


async def test_a_prompt_sent_while_a_panel_answers_stays_in_the_box() -> None:
    desk = Desk(a=Script([], hangs=True))
    await desk.send("hi")
    running = asyncio.create_task(desk.stream(0))
    await desk.until_running("a")
    await desk.send("impatient")
    assert desk.prompt == "impatient"
    assert STILL_ANSWERING.split(":")[0] in desk.hint
    await desk.stop(0, 1)
    await running
    assert [turn.prompt for turn in desk.states[0].turns] == ["hi"]


async def test_the_stream_of_a_closed_tab_is_let_go() -> None:
    desk = Desk(a=Script(["x"], hangs=True))
    await desk.send("hi")
    events = desk.streaming.panel(desk.request, desk.states[0], desk.controls[0], desk.shown)
    async with aclosing(events) as outputs:  # type: ignore[type-var]
        async for _ in outputs:
            if desk.pool.running["a"]:
                break
    assert not desk.pool.running["a"]
    assert not desk.controls[0].is_open


async def test_an_error_stays_in_its_panel_and_can_be_asked_again() -> None:
    desk = Desk(a=Script(["so "], error=OutOfMemoryError("The GPU is full.")))
    await desk.send("hi")
    await desk.answer()
    failed, fine = (state.turns[0] for state in desk.states)
    assert (failed.prompt, failed.answer, failed.error) == ("hi", "so ", "The GPU is full.")
    assert (fine.answer, fine.error) == ("Hello, world.", "")
    desk.pool.scripts = {}
    values = await desk.regenerate(0)
    desk.put(0, values[1:])
    await desk.stream(0)
    (again,) = desk.states[0].turns
    assert (again.prompt, again.answer) == ("hi", "Hello, world.")


async def test_an_unexpected_error_is_one_sentence_and_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(a=Script(error=RuntimeError("secret detail")))
    await desk.send("hi")
    await desk.stream(0)
    assert desk.states[0].turns[0].error == UNEXPECTED
    assert "secret detail" in caplog.text


async def test_an_engine_that_ends_without_a_reason_is_told() -> None:
    desk = Desk(a=Script(["x"], finish_reason=None))
    await desk.send("hi")
    await desk.stream(0)
    assert desk.states[0].turns[0].error == NO_END


async def test_regenerate_asks_the_same_again_in_this_panel_only() -> None:
    desk = Desk()
    await desk.send("one")
    await desk.answer()
    for fresh, same_seed in ((False, True), (True, False)):
        values = await desk.regenerate(0, SAMPLING._replace(fresh_seed=fresh))
        desk.put(0, values[1:])
        await desk.stream(0)
        request = desk.pool.requests[-1]
        assert [message.content for message in request.messages] == ["one"]
        assert (request.sampling.seed == 42) is same_seed
    assert len(desk.states[0].turns) == len(desk.states[1].turns) == 1
    assert len(desk.pool.requests) == 4


async def test_regenerate_with_nothing_to_ask_does_nothing() -> None:
    desk = Desk()
    assert await desk.regenerate(0) == [SKIP] * 4


async def test_a_stream_runs_once_whoever_else_asks_for_it() -> None:
    desk = Desk(a=Script(["x"] * 10, pause_s=0.01))
    await desk.send("hi")
    first, second = await asyncio.gather(desk.stream(0), desk.stream(0))
    assert [SKIP] in (first, second)
    assert len(desk.pool.requests) == 1


async def test_loading_progress_is_painted_but_never_said() -> None:
    progress = LoadProgress("weights", 1_000_000_000, 2_000_000_000)
    desk = Desk(a=Script(["x"], loading=[progress] * 3, pause_s=0.02))
    await desk.send("hi")
    paints = await desk.stream(0)
    assert any("1.0 of 2.0 GB" in str(paint) for paint in paints)
    assert "GB" not in str(paints[-1])
    assert desk.states[0].turns[0].answer == "x"


async def test_every_paint_holds_plain_full_values() -> None:
    desk = Desk(a=Script(["x"] * 30, pause_s=0.005))
    await desk.send("hi")
    for chat in await desk.stream(0):
        assert [message["role"] for message in chat] == ["user", "assistant"]


async def test_wrong_sampling_is_a_sentence_at_the_prompt() -> None:
    desk = Desk()
    await desk.send("hi", SAMPLING._replace(max_new_tokens=None))
    assert "Longest answer is empty" in desk.hint
    assert (desk.prompt, desk.pool.requests) == ("hi", [])


HALF = "the text contains half a character (a lone surrogate, U+D83D at place 6): remove it"


async def test_half_a_character_in_the_prompt_is_a_sentence_at_the_prompt() -> None:
    desk = Desk()
    questions = [part for index in range(2) for part in desk.question(index)]
    values = await desk.handlers.start_turn(
        desk.request, "half \ud83d", desk.shown, *SAMPLING, *desk.prompting, *questions
    )
    hint = values.pop(2)
    assert f"Prompt: {HALF}." in hint
    assert values == [SKIP] * 8, "nothing of it may go back to the browser"
    await desk.send("whole")
    await desk.answer()
    assert [state.turns[0].answer for state in desk.states] == ["Hello, world."] * 2


async def test_half_a_character_in_a_system_prompt_or_stop_string_is_a_sentence_too() -> None:
    desk = Desk()
    await desk.send("hi", SAMPLING._replace(stop="ok\nhalf \ud83d"))
    assert f"Stop strings: {HALF}" in desk.hint
    desk.systems[1] = "half \ud83d"
    await desk.send("hi")
    assert f"System prompt of panel 2: {HALF}." in desk.hint
    assert desk.pool.requests == []
    desk.systems[1] = ""
    await desk.send("hi")
    await desk.answer()
    desk.systems[0] = "half \ud83d"
    hint, *rest = await desk.regenerate(0)
    assert "half a character" in hint
    assert rest == [SKIP] * 3


async def test_a_late_chunk_after_stop_is_not_painted() -> None:
    desk = Desk(a=Script(["x"] * 100, pause_s=0.001))
    await desk.send("hi")
    running = asyncio.create_task(desk.stream(0))
    await desk.until_running("a")
    await desk.stop(0)
    await running
    before = desk.states[0]
    assert before.turns[0].finish_reason == "abort"
    assert before.fold(GenerationChunk("late")) == before

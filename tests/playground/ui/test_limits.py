"""The page's limits, in its handlers, for what a browser sends is not to be trusted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from desk import SAMPLING, SKIP, Desk
from fakes import Script
from markup import read

from playground.limits import Limits
from playground.ui.lens.template_editor import PanelTemplate

HANGS = Script(["half"], hangs=True)


def hint(desk: Desk) -> str:
    return read(desk.hint).text


async def test_a_prompt_that_comes_too_soon_stays_in_its_box_with_the_reason() -> None:
    desk = Desk(Limits(asks_per_minute=1))
    await desk.send("one")
    await desk.answer()
    assert desk.prompt == ""
    await desk.send("two")
    assert desk.prompt == "two"
    assert hint(desk).startswith("You are asking faster than 1 prompt a minute: wait ")
    assert [len(state.turns) for state in desk.states] == [1, 1]
    assert len(desk.pool.requests) == 2
    assert desk.pool.encoded.total() == 2, "what is refused costs nothing"


async def test_regenerate_is_a_prompt_like_any_other() -> None:
    desk = Desk(Limits(asks_per_minute=1))
    await desk.send("one")
    await desk.answer()
    said, *rest = await desk.regenerate(0)
    assert "You are asking faster than" in said
    assert rest == [SKIP] * 3


async def test_panels_whose_prompt_is_refused_take_no_place() -> None:
    desk = Desk(Limits(places=1, running_per_session=1))
    for index in range(2):
        desk.models[index] = "nosys"
    await desk.send("x" * 2_000)
    assert all(desk.notices), "the context is full"
    assert desk.entrance.gate.taken == 0
    await desk.send("x")
    assert desk.prompt == ""
    await desk.answer()
    assert desk.entrance.gate.taken == 0


async def test_a_panel_that_is_not_shown_takes_no_part() -> None:
    desk = Desk(Limits(places=1))
    desk.shown = [True, False]
    await desk.send("x")
    await desk.stream(0)
    assert desk.entrance.gate.taken == 0, "nobody waits for a stream of the hidden one"


async def test_both_panels_of_the_one_who_waits_say_so_and_then_answer() -> None:
    first, second = Desk(Limits(places=1), a=HANGS), Desk()
    second.entrance, second.streaming, second.handlers = first.entrance, first.streaming, first.handlers
    await first.send("one")
    holding = asyncio.create_task(first.stream(0))
    await first.until_running("a")
    second.models = ["b", "b"]
    await second.send("two")
    paints: list[list[object]] = [[], []]

    async def watch(index: int) -> None:
        panel = second.streaming.panel(second.request, second.states[index], second.controls[index], second.shown)
        async with aclosing(panel) as outputs:  # type: ignore[type-var]
            async for _state, chat in outputs:
                paints[index].append(chat[-1]["content"][-1]["text"])

    waiting = [asyncio.create_task(watch(index)) for index in range(2)]
    async with asyncio.timeout(20):
        while not all(any("Waiting: 1st in line" in str(foot) for foot in panel) for panel in paints):
            await asyncio.sleep(0.01)
        first.controls[0].say("stop")
        await holding
        await first.stream(1)
        await asyncio.gather(*waiting)
    assert all("ended by itself" in str(panel[-1]) for panel in paints)
    assert first.entrance.gate.taken == 0


async def test_stop_leaves_the_line() -> None:
    desk, other = Desk(Limits(places=1), a=HANGS, b=HANGS), Desk()
    other.entrance, other.streaming, other.handlers = desk.entrance, desk.streaming, desk.handlers
    await desk.send("one")
    holding = [asyncio.create_task(desk.stream(index)) for index in range(2)]
    await desk.until_running("a")
    await other.send("two")
    waiting = [asyncio.create_task(other.stream(index)) for index in range(2)]
    async with asyncio.timeout(20):
        while not desk.entrance.gate.waiting:
            await asyncio.sleep(0.01)
        for control in other.controls:
            control.say("stop")
        await asyncio.gather(*waiting)
    assert [state.last.finish_reason for state in other.states if state.last] == ["abort", "abort"]
    assert desk.entrance.gate.waiting == 0
    assert desk.pool.running["a"] == 1, "nothing was sent for who waited"
    for control in desk.controls:
        control.say("stop")
    await asyncio.gather(*holding)


@pytest.mark.parametrize("place", ["prompt", "system", "template", "stop"])
async def test_no_text_is_longer_than_the_limit(place: str) -> None:
    desk = Desk(Limits(prompt_characters=100))
    long, prompt, sampling = "x" * 101, "hello", SAMPLING
    if place == "prompt":
        prompt = long
    elif place == "system":
        desk.systems[1] = long
    elif place == "template":
        desk.written[0] = PanelTemplate("a", long)
    else:
        sampling = SAMPLING._replace(stop=long)
    await desk.send(prompt, sampling)
    assert "101 characters, and at most 100 may be sent here" in hint(desk)
    assert desk.prompt == prompt
    assert not desk.pool.requests
    assert not any(control.is_open for control in desk.controls)


async def test_no_answer_longer_than_the_limit_is_asked_for() -> None:
    desk = Desk(Limits(answer_tokens=64))
    await desk.send("hello", SAMPLING._replace(max_new_tokens=65))
    assert "at most 64 tokens may be asked for here, not 65" in hint(desk)
    await desk.send("hello", SAMPLING._replace(max_new_tokens=64))
    assert desk.hint == ""


async def test_a_conversation_ends_where_it_may_not_go_on_and_clear_begins_anew() -> None:
    desk = Desk(Limits(turns=2))
    for prompt in ("one", "two"):
        await desk.send(prompt)
        await desk.answer()
    desk.shown = [True, True]
    desk.put(1, [*await desk.handlers.clear(desk.controls[1])])
    await desk.send("three")
    assert "2 prompts, and may not go on here: Clear begins anew" in desk.notices[0]
    assert [len(state.turns) for state in desk.states] == [2, 1]
    await desk.answer()


async def test_turns_that_failed_count_too() -> None:
    """They are not sent again, but they are kept."""
    desk = Desk(Limits(turns=2), a=Script([], error=RuntimeError("no")))
    for prompt in ("one", "two", "three"):
        await desk.send(prompt)
        await desk.answer()
    assert len(desk.states[0].turns) == 2
    assert "Clear begins anew" in desk.notices[0]


async def test_the_lenses_lay_out_nothing_longer() -> None:
    desk = Desk(Limits(prompt_characters=100))
    assert "101 characters, and at most 100" in await desk.look("x" * 101)
    caution, *_ = await desk.follow("</s>" * 26)
    assert caution == ""
    assert desk.pool.encoded.total() == 0
    assert "at most 100" not in await desk.look("x" * 100)


async def test_a_conversation_that_has_become_too_long_goes_on_only_after_clear() -> None:
    """The history counts: two answers of 60 characters, and what was asked."""
    says = Script(["word " * 12])
    desk = Desk(Limits(prompt_characters=50), a=says, b=Script(["word"]))
    for prompt in ("x" * 50, "y" * 40):
        await desk.send(prompt)
        await desk.answer()
    await desk.send("z")
    assert "211 characters in all, and at most 200 may be sent here: Clear begins a new one" in desk.notices[0]
    assert [len(state.turns) for state in desk.states] == [2, 3], "the other panel's is shorter"
    await desk.answer()
    assert "at most 200 may be sent here" in await desk.look("z")
    desk.put(0, [*await desk.handlers.clear(desk.controls[0])])
    assert "at most 200" not in await desk.look("z")
    await desk.send("z")
    assert len(desk.states[0].turns) == 1
    await desk.answer()


async def test_regenerate_sends_no_longer_conversation_either() -> None:
    desk = Desk(Limits(prompt_characters=50))
    for prompt in ("x" * 50, "y" * 50):
        await desk.send(prompt)
        await desk.answer()
    desk.systems[0] = "s" * 50
    assert (await desk.regenerate(0))[0] == ""
    await desk.stream(0)
    desk.systems[0] = "s" * 51
    assert "at most 50" in (await desk.regenerate(0))[0]
    desk.states[0] = replace(desk.states[0], turns=desk.states[0].turns * 2)
    desk.systems[0] = "s" * 50
    assert "characters in all, and at most 200 may be sent here" in (await desk.regenerate(0))[0]

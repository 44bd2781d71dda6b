"""The lens while somebody types, on a scripted pool: what is shown, what is sent, and what costs nothing."""

from __future__ import annotations

import asyncio

import pytest
from desk import SAMPLING, SKIP, Desk
from fake_encoder import FIRST_CONTROL
from fakes import Script
from markup import read

from playground.ui import view
from playground.ui.lens import handlers as handlers_module
from playground.ui.lens import look as look_module
from playground.ui.lens.prompting import PromptingValues


async def test_the_lens_shows_what_is_typed_and_then_what_was_asked() -> None:
    desk = Desk()
    desk.systems = ["sys", ""]
    assert "<|system|>sys\n<|user|>typed <b>\n<|assistant|>" in read(await desk.look("typed <b>")).text
    assert "Type a prompt" in await desk.look("  ")
    desk.systems = ["old", ""]
    await desk.send("asked")
    assert "Being answered" in await desk.look("")
    assert "<|user|>next\n" in read(await desk.look("next")).text
    await desk.stream(0)
    after = read(await desk.look("")).text
    assert "What the last answer was made from" in after
    assert "<|system|>old\n<|user|>asked\n" in after
    assert "1,2" in await desk.look("p" * 1200)


async def test_each_view_has_its_own() -> None:
    desk = Desk()
    text, tokens = await desk.look("hi"), await desk.look("hi", mode="Tokens")
    ids = await desk.look("hi", with_ids=True)
    assert 'class="exact"' in text
    assert 'class="boxes"' not in text
    assert f"{ord('h')} {ord('i')}" in ids
    assert f"{ord('h')} {ord('i')}" not in text
    assert 'class="boxes"' in tokens
    assert "tokens per character" in tokens


async def test_half_a_character_is_told_in_the_lens() -> None:
    desk = Desk()
    for typed, system in (("half \ud83d", ""), ("x", "half \ud83d")):
        desk.systems[0] = system
        assert "half a character (a lone surrogate, U+D83D at place 6): remove it" in await desk.look(typed)


async def test_a_closed_lens_costs_nothing() -> None:
    desk = Desk()
    assert await desk.look("typed", is_open=False) == ""
    assert await desk.follow("typed, and nothing that looks like control", is_open=False) == ["", "", ""]
    assert not desk.pool.encoded


async def test_opening_and_closing() -> None:
    desk = Desk()
    typing = ["typed", 64, *desk.prompting]
    assert "typed" in read(await desk.lens.open("", *typing, *desk.glance(0, is_open=False))).text
    assert await desk.lens.close(desk.watched[0]) == ""
    assert await desk.key("typed") == ["", SKIP, SKIP]


async def test_an_event_from_before_the_opening_that_comes_after_it_closes_nothing() -> None:
    desk = Desk()
    typing = ["typed", 64, *desk.prompting]
    before = [desk.glance(index, is_open=False) for index in range(2)]
    await desk.lens.open("", *typing, *before[0])
    _, first, second = await desk.lens.follow(desk.shown, *typing, *before[0], *before[1])
    assert "typed" in read(first).text
    assert second == ""
    assert "typed on" in read((await desk.key("typed on"))[1]).text


async def test_a_key_that_overtakes_the_opening_is_shown_and_one_of_long_ago_is_not() -> None:
    desk = Desk()
    await desk.key("typed meanwhile")
    opening = ["at the click", 64, *desk.prompting, *desk.glance(0, is_open=False)]
    overtaken = await desk.lens.open("at the click", *opening)
    assert "typed meanwhile" in read(overtaken).text
    in_order = await desk.lens.open("typed meanwhile", *opening)
    assert "at the click" in read(in_order).text


async def test_another_event_that_was_sent_before_a_key_and_comes_after_it_brings_no_old_text_back() -> None:
    desk = Desk()
    before = [64, *desk.prompting, *desk.glance(0)]
    await desk.lens.open("", "old", *before)
    await desk.key("newer")

    async def switched(typed: str, mode: str) -> str:
        (markup,) = await desk.lens.looks(typed, *before[:3], mode, *before[4:])
        return read(markup).text

    assert "newer" in await switched("old", "Tokens")
    assert "newer" in await switched("old", "Prompt")
    await switched("old", "Template")
    assert "unheard" in await switched("unheard", "Prompt")
    assert "unheard" in await switched("unheard", "Tokens")


async def test_a_key_redraws_what_the_last_look_showed_with_the_new_text() -> None:
    desk = Desk()
    desk.systems = ["sys", ""]
    await desk.follow("a", mode="Tokens")
    caution, first, second = await desk.key("ab </s>")
    assert (caution, first, second) == tuple(await desk.follow("ab </s>", mode="Tokens"))
    assert 'class="boxes"' in first
    assert "of A and B" in read(caution).text


async def test_a_key_changes_nothing_under_a_template() -> None:
    desk = Desk()
    await desk.look("x", mode="Template")
    assert (await desk.key("xy"))[1] == SKIP


async def test_a_key_knows_what_was_said_since_the_last_look() -> None:
    desk = Desk()
    await desk.look("x")
    await desk.send("asked")
    await desk.answer()
    assert "<|user|>asked\n" in read((await desk.key("next"))[1]).text


async def test_of_two_pictures_the_one_begun_last_is_shown() -> None:
    desk = Desk()
    await desk.look("x")
    slow, quick = asyncio.create_task(desk.key("one")), asyncio.create_task(desk.key("one, two"))
    assert (await slow)[1] == SKIP
    assert "one, two" in read((await quick)[1]).text


async def test_a_tokenizer_that_never_comes_is_a_sentence_and_no_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module, "PATIENCE_S", 0.02)
    monkeypatch.setattr(handlers_module, "CAUTION_S", 0.02)
    desk = Desk(a=Script(encoder_hangs=True))
    caution, first, second = await desk.follow("a </s>")
    assert "still being loaded" in first
    assert "</s>" in read(second).text
    assert "of B." in read(caution).text


async def test_the_caution_is_about_the_models_that_are_shown() -> None:
    desk = Desk()
    caution, *_ = await desk.follow("a </s> and <b>", is_open=False)
    assert "</s> is a control token of A and B." in read(caution).text
    desk.shown = [True, False]
    caution, *_ = await desk.follow("a </s>", is_open=False)
    assert "</s> is a control token of A. It is sent as plain text." in read(caution).text
    desk.prompting = PromptingValues("as_typed", "refuse")
    caution, *_ = await desk.follow("a </s>", is_open=False)
    assert "It is sent as such." in read(caution).text
    assert (await desk.follow("a <b>", is_open=False))[0] == ""


async def test_the_choices_go_into_the_lens_and_into_what_is_sent() -> None:
    desk = Desk()
    for control, is_control in (("plain", False), ("as_typed", True)):
        desk.prompting = PromptingValues(control, "drop_oldest")  # type: ignore[arg-type]
        assert (str(FIRST_CONTROL + 3) in await desk.look("</s>", with_ids=True)) is is_control
        await desk.send("</s>")
        await desk.answer()
        assert {request.options.control for request in desk.pool.requests[-2:]} == {control}
    assert desk.pool.requests[-1].options.when_full == "drop_oldest"
    desk.prompting = PromptingValues("plain", "refuse")
    _, state, *_ = await desk.regenerate(0)
    assert state.last.request.options.control == "plain"


async def test_turns_that_the_last_prompt_left_out_are_marked_exactly_and_after_regenerate_too() -> None:
    desk = Desk(a=Script(["x" * 320]))
    desk.prompting = PromptingValues("plain", "drop_oldest")
    for prompt in ("one", "two", "three", "four"):
        await desk.send(prompt)
        await desk.stream(0)
        await desk.stream(1)
    assert desk.states[0].unsent == {0}
    values = await desk.regenerate(0, SAMPLING._replace(max_new_tokens=500))
    desk.put(0, values[1:])
    await desk.stream(0)
    assert desk.states[0].unsent == {0, 1}
    marked = [message for message in view.chat(desk.states[0]) if message["content"][-1]["text"] == view.UNSENT]
    assert [message["content"][0]["text"] for message in marked] == ["one", "two"]
    assert desk.states[1].unsent == frozenset()

"""The button for token probabilities: what is shown is the last answer's, to the letter, or it is gone."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any

import pytest
from desk import SKIP, Desk
from fakes import Script
from markup import read

from playground.errors import EngineError
from playground.limits import OPEN, Limits
from playground.types import GenerationRequest, LikelyToken, Message, ScoredPiece, TokenScore
from playground.ui.lens import probability_view
from playground.ui.lens.probabilities import NOT_KNOWN, NOT_YET, UNEXPECTED, ProbabilityHandlers, Showing
from playground.ui.lens.probability_view import BEHIND_ITS_END, WAITING, percent
from playground.ui.state import Turn


def piece(text: str, *probabilities: float, is_control: bool = False) -> ScoredPiece:
    """Its tokens are spelled "<0>", "<1>" …, and each might have been "other" as well."""
    return ScoredPiece(
        text,
        tuple(
            TokenScore(
                number,
                f"<{number}>",
                probability,
                (LikelyToken(99, "other", 1 - probability), LikelyToken(number, f"<{number}>", probability)),
            )
            for number, probability in enumerate(probabilities)
        ),
        is_control,
    )


PIECES = (piece("안", 0.5, 0.5, 0.4), piece("<b>\n", 0.95), piece("</s>", 0.01, is_control=True))
A = Script(pieces=("안", "<b>\n"), scores=PIECES)


class Presser:
    """The first panel's button, as Gradio would hold it."""

    def __init__(self, script: Script = A, limits: Limits = OPEN) -> None:
        self.desk = Desk(limits, a=script)
        self.own = ProbabilityHandlers(self.desk.pool, self.desk.entrance)  # type: ignore[arg-type]
        self.showing = Showing()
        self.view = ""
        self.can_press = False

    async def answered(self) -> Presser:
        await self.desk.send("hi")
        await self.follow()
        await self.desk.answer()
        await self.follow()
        return self

    async def press(self) -> list[str]:
        steps = [
            step async for step in self.own.press(self.desk.request, self.showing, self.desk.states[0]) if step != SKIP
        ]
        self.view = steps[-1] if steps else self.view
        return steps

    async def follow(self, model_id: str = "a") -> None:
        self.put(await self.own.follow(self.showing, self.desk.states[0], model_id))

    def put(self, values: list[Any]) -> None:
        view, button = values
        self.view = self.view if view == SKIP else view
        self.can_press = button.interactive

    @property
    def open_questions(self) -> int:
        return sum(self.desk.pool.scoring.values())

    async def until_asked(self) -> None:
        async with asyncio.timeout(5):
            while not self.open_questions:
                await asyncio.sleep(0.005)


async def test_a_press_shows_the_answer_and_another_closes_it() -> None:
    panel = await Presser().answered()
    assert panel.can_press
    waiting, shown = await panel.press()
    assert WAITING in waiting
    assert shown == probability_view.odds(panel.desk.states[0].turns[-1], PIECES)
    assert await panel.press() == [""]
    assert len(await panel.press()) == 2


async def test_before_an_answer_has_ended_there_is_nothing_to_press() -> None:
    panel = Presser()
    await panel.follow()
    assert not panel.can_press
    assert NOT_YET in (await panel.press())[0]
    await panel.desk.send("hi")
    panel.showing.close()
    await panel.follow()
    assert not panel.can_press
    assert NOT_YET in (await panel.press())[0]


@pytest.mark.parametrize("what", ["a new turn", "regenerate", "clear", "another model"])
async def test_it_closes_when_the_answer_is_not_the_last_any_more(what: str) -> None:
    panel = await Presser().answered()
    await panel.press()
    await panel.follow()
    assert 'class="odds"' in panel.view, "it is still the last answer"
    if what == "another model":
        await panel.follow("b")
    elif what == "clear":
        panel.put(await panel.own.close(panel.showing))
    else:
        if what == "a new turn":
            await panel.desk.send("more")
        else:
            panel.desk.put(0, (await panel.desk.regenerate(0))[1:])
        await panel.follow()
    assert (panel.view, panel.can_press, panel.showing.is_open) == ("", False, False)


async def test_it_is_given_up_when_it_closes_meanwhile() -> None:
    panel = await Presser(Script(scores=None)).answered()
    first = asyncio.create_task(panel.press())
    await panel.until_asked()
    assert await panel.press() == [""]
    assert len(await first) == 1, "nothing is painted behind the close"
    assert panel.open_questions == 0
    again = asyncio.create_task(panel.press())
    await panel.until_asked()
    await panel.desk.send("more")
    await panel.follow()
    assert len(await again) == 1
    assert panel.open_questions == 0


async def test_a_page_that_is_closed_gives_it_up() -> None:
    panel = await Presser(Script(scores=None)).answered()
    task = asyncio.create_task(panel.press())
    await panel.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert panel.open_questions == 0


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (Script(scores=EngineError("A has been <unloaded>.")), "A has been <unloaded>."),
        (Script(scores=LookupError("a secret")), UNEXPECTED),
        (Script(knows_tokens=False), NOT_KNOWN),
    ],
)
async def test_what_cannot_be_is_a_sentence_in_its_place(script: Script, sentence: str) -> None:
    panel = await Presser(script).answered()
    await panel.press()
    assert sentence in read(panel.view).text
    assert "secret" not in panel.view
    assert await panel.press() == [""]


def markup_of(pieces: tuple[ScoredPiece, ...], answer: str = "") -> str:
    """Of a turn with this answer."""
    request = GenerationRequest(model_id="a", messages=(Message(role="user", content="hi"),))
    return probability_view.odds(Turn(request, answer), pieces)


def parts(markup: str) -> list[tuple[str, str, list[Any], str]]:
    """Of each part of the answer: classes, title, data, text."""
    span = r'<span class="([^"]*)" role="button"[^>]*title="([^"]*)" data-odds="([^"]*)">(.*?)</span>'
    found = re.findall(span, markup, re.S)
    return [
        (classes, title, json.loads(html.unescape(data)), html.unescape(text)) for classes, title, data, text in found
    ]


def test_the_text_is_the_answer_to_the_letter_and_nothing_is_rendered() -> None:
    markup = markup_of(PIECES)
    assert [text for *_, text in parts(markup)] == ["안", "<b>\n", "</s>"]
    assert set(read(markup).tags) == {"div", "p", "span", "ul", "li"}
    hostile = markup_of((piece('"><script>alert(1)</script>\x00\r', 0.5),))
    assert "script" not in read(hostile).tags
    assert "\r" not in hostile


def test_shades_go_by_the_probability_of_the_whole_piece() -> None:
    [(first, title, data, _), (second, *_), (third, *_)] = parts(markup_of(PIECES))
    assert "p3" in first
    assert title == "10 % = 50 % × 50 % × 40 %"
    assert "p0" in second
    assert third.split() == ["control", "odd", "p4"]
    assert data[0] == ["<0>", "50 %", [["other", "50 %", 0.5, 0], ["<0>", "50 %", 0.5, 1]]]
    assert len(data) == 3


def test_one_part_alone_can_be_reached_by_tab() -> None:
    assert re.findall(r'tabindex="(-?\d)"', markup_of(PIECES)) == ["0", "-1", "-1"]


def test_mean_and_perplexity() -> None:
    text = read(markup_of((piece("a", 0.5), piece("b", 0.125)))).text
    assert "2 tokens" in text
    assert "mean probability 31 %" in text
    assert "perplexity 4.00" in text
    assert "beyond measure" in read(markup_of((piece("a", 0.0),))).text
    assert "0 tokens" in read(markup_of(())).text


def test_what_a_stop_string_cut_off_is_named() -> None:
    assert BEHIND_ITS_END in markup_of((piece("one ", 0.5), piece("STOP", 0.5)), "one ")
    assert BEHIND_ITS_END not in markup_of((piece("one ", 0.5), piece("</s>", 0.5, is_control=True)), "one ")


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "100 %"),
        (0.99999, "over 99.9 %"),
        (0.995, "99.5 %"),
        (0.5321, "53 %"),
        (0.0994, "9.9 %"),
        (0.001, "0.1 %"),
        (0.0, "under 0.1 %"),
    ],
)
def test_percentages(probability: float, words: str) -> None:
    assert percent(probability) == words


async def test_reading_them_counts_among_the_prompts_of_a_minute() -> None:
    panel = await Presser(limits=Limits(asks_per_minute=2)).answered()
    await panel.press()
    assert await panel.press() == [""]
    (refused,) = await panel.press()
    assert "You are asking faster than 2 prompts a minute" in refused
    assert sum(panel.desk.pool.scoring.values()) == 0

"""More visitors than places: each is told the place in line, gets the answer to its own prompt, and leaves nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator

import pytest
from crowd import LATE_S, Visit, come
from fakes import FakePool, spec
from raw_page import PanelSeen
from serving import serving

from model_registry.registry import Registry
from playground.limits import Limits
from playground.types import GenerationChunk, GenerationRequest, StreamEvent

PIECES = 8


class Echo(FakePool):
    """Says the prompt back, a few times, and takes its time."""

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[StreamEvent, None]:
        self.running[request.model_id] += 1
        try:
            for number in range(PIECES):
                await asyncio.sleep(0.05)
                yield GenerationChunk(f"{request.messages[-1].content} ", "stop" if number == PIECES - 1 else None)
        finally:
            self.running[request.model_id] -= 1


@pytest.fixture
def pool() -> Echo:
    return Echo(Registry([spec("a"), spec("b")]))


@pytest.fixture
def site(pool: Echo) -> Iterator[str]:
    limits = Limits(places=2, waiting=8, running_per_session=1, running_per_address=1, asks_per_minute=3)
    with serving(pool, ["a", "b"], limits=limits, proxies=1) as url:
        yield url


async def test_a_small_crowd_is_served_one_by_one_and_nobody_without_a_word(site: str, pool: Echo) -> None:
    manners = ["stays", "stays", "stops", "leaves in line", "leaves while answered", "stays", "leaves in line", "stays"]
    visits = [Visit(f"marker-{number}", manner) for number, manner in enumerate(manners)]  # type: ignore[arg-type]
    await come(site, visits)
    told = [visit for visit in visits if visit.was_told]
    assert len(told) >= 4, "there are two places, and eight came at once"
    for visit in visits:
        assert visit.silence_s < math.inf
        assert not visit.was_kept_in_the_dark
        others = [each.prompt for each in visits if each is not visit]
        for panel in visit.seen:
            assert not any(marker in panel.text for marker in others)
            assert panel.positions == sorted(panel.positions, reverse=True), "the line goes forward only"
            if visit.ended == "stays":
                assert panel.answer.split() == [visit.prompt] * PIECES
    async with asyncio.timeout(20):
        while pool.running.total():  # those who vanished are noticed at the next word for them
            await asyncio.sleep(0.02)
    last = [Visit("again", "stays"), Visit("once more", "stays")]
    await come(site, last)
    assert [visit.was_told for visit in last] == [False, False], "every place is free again"
    assert all(panel.answer for visit in last for panel in visit.seen)


async def test_who_finds_the_line_full_keeps_the_prompt_and_is_told(site: str) -> None:
    visits = [Visit(f"marker-{number}", "stays") for number in range(12)]
    await come(site, visits)
    refused = [visit for visit in visits if visit.hint]
    assert [visit.hint for visit in refused] == ["8 prompts wait in line already: try again in a minute."] * 2
    assert all(not panel.chat for visit in refused for panel in visit.seen)


def panel(*said: tuple[float, str, str], over_s: float = math.inf) -> PanelSeen:
    """What a panel showed: when, its answer so far, the line under it."""
    seen = PanelSeen()
    for seconds, answer, foot in said:
        seen.see([{"content": [{"text": answer}, {"text": foot}] if answer else [{"text": foot}]}], seconds)
    seen.over_s = over_s
    return seen


LINE, READING, ANSWERING = "Waiting: 3rd in line", "Reading the prompt", "answering"
MEASURED = {
    "to the first word": (panel((4.0, "a", ANSWERING), (4.1, "a", "ended"), over_s=4.1), 4.0),
    "a place is a word": (panel((1.0, "", LINE), (1.5, "a", ANSWERING), over_s=1.5), 1.0),
    "between words": (panel((1.0, "", LINE), (7.0, "a", ANSWERING), (8.0, "ab", "ended"), over_s=8.0), 6.0),
    "the same again": (panel((1.0, "", LINE), (5.0, "", LINE), (7.0, "a", ANSWERING), over_s=7.0), 6.0),
    "a clock": (panel((0.1, "", READING), (2.0, "", f"{READING} · 2 s"), (3, "a", "ended"), over_s=3), 3.0),
    "to the end": (panel((1.0, "a", ANSWERING), over_s=9.0), 8.0),
    "never a word": (panel((0.1, "", READING), over_s=9.0), math.inf),
    "nothing at all": (panel(over_s=9.0), math.inf),
}


@pytest.mark.parametrize("name", MEASURED)
def test_silence_is_the_longest_gap_in_what_is_heard(name: str) -> None:
    seen, silence_s = MEASURED[name]
    assert Visit("p", "stays", [seen, panel((0.5, "a", "ended"), over_s=0.5)]).silence_s == silence_s


def test_who_leaves_listens_no_longer() -> None:
    told, untold = panel((1.0, "", LINE)), panel()
    left = Visit("p", "leaves in line", [told, untold], left_s=2.5)
    assert (left.silence_s, left.later_silence_s) == (2.5, 1.5)


def test_who_waits_for_long_without_a_place_is_counted() -> None:
    late, soon = panel((LATE_S + 1, "a", ANSWERING)), panel((0.5, "a", ANSWERING))
    told = panel((1.0, "", LINE), (LATE_S + 1, "a", ANSWERING))
    dark = {"late": [late, late], "never": [panel(), panel()], "soon": [late, soon], "told": [told, late]}
    assert [name for name, seen in dark.items() if Visit("p", "stays", seen).was_kept_in_the_dark] == ["late", "never"]

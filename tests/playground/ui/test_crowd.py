"""More visitors than places: each is told the place in line, gets the answer to its own prompt, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from crowd import Visit, come
from fakes import FakePool, spec
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
    waited = [visit for visit in visits if visit.has_waited]
    assert len(waited) >= 4, "there are two places, and eight came at once"
    for visit in visits:
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
    assert [visit.has_waited for visit in last] == [False, False], "every place is free again"
    assert all(panel.answer for visit in last for panel in visit.seen)


async def test_who_finds_the_line_full_keeps_the_prompt_and_is_told(site: str) -> None:
    visits = [Visit(f"marker-{number}", "stays") for number in range(12)]
    await come(site, visits)
    refused = [visit for visit in visits if visit.hint]
    assert [visit.hint for visit in refused] == ["8 prompts wait in line already: try again in a minute."] * 2
    assert all(not panel.chat for visit in refused for panel in visit.seen)

"""What was said before an answer failed comes out before its failure."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from playground.engines.decoding.inbox import Inbox, Output, wake
from playground.errors import OutOfMemoryError


def output(*tokens: int) -> Output:
    return Output(list(tokens), finished=False, started=perf_counter())


async def test_the_newest_output_comes_once_and_then_the_end() -> None:
    inbox = Inbox()
    inbox.put(output(5))
    inbox.put(output(5, 6))
    inbox.end(OutOfMemoryError("The device is full."))
    assert (await inbox.take()).tokens == [5, 6]
    with pytest.raises(OutOfMemoryError):
        await inbox.take()


async def test_an_output_that_was_taken_is_not_given_again() -> None:
    inbox = Inbox()
    inbox.put(output(5))
    wake([inbox])
    await inbox.take()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.take(), 0.05)
    inbox.put(output(5, 6))
    wake([inbox])
    assert (await asyncio.wait_for(inbox.take(), 5)).tokens == [5, 6]

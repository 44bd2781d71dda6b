"""A stream on a clock: what arrives between two paints comes out as one batch, and commands cut in.

An engine may speak a thousand times a second and a browser can paint twenty; a hung engine says nothing at all, and
still Stop must work and a closed tab be noticed. Knows no gradio and no model. Used by `streaming`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from playground.types import StreamEvent

Command = Literal["stop", "clear"]

HEARTBEAT_S = 0.5
RELEASE_S = 5.0


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None = None


Inbox = asyncio.Queue[StreamEvent | Command | _End]


class StreamControl:
    """The one door between a panel's buttons and its running stream; one object a panel and session.

    While a stream is due or running it is the only writer of the panel's state, so buttons speak to it instead of
    writing themselves.
    """

    def __init__(self) -> None:
        self._inbox: Inbox | None = None
        self._claimed = False

    @property
    def is_open(self) -> bool:
        return self._inbox is not None

    def open(self) -> None:
        """Announce a stream, from the moment its turn is submitted."""
        self._inbox, self._claimed = asyncio.Queue(), False

    def claim(self) -> Inbox | None:
        """The inbox, for the first who asks after `open`; None for everyone else."""
        if self._claimed:
            return None
        self._claimed = True
        return self._inbox

    def say(self, command: Command) -> bool:
        """Pass a command to the stream; False if there is none to hear it. One that was announced and is not there yet
        needs not come any more."""
        if self._inbox is None or not self._claimed:
            self.close()
            return False
        self._inbox.put_nowait(command)
        return True

    def close(self) -> None:
        self._inbox, self._claimed = None, False


async def paced(
    stream: AsyncGenerator[StreamEvent, None], inbox: Inbox, interval_s: float
) -> AsyncGenerator[list[StreamEvent | Command], None]:
    """Batches of what arrived, at most one every `interval_s` seconds, empty ones while nothing comes.

    The first and the last event come out at once. Raises what the stream raises, after what it said before. Closing
    this generator closes the stream.
    """
    pump = asyncio.create_task(_pump(stream, inbox))
    try:
        while True:
            batch, end = await _next_batch(inbox)
            yield batch
            if end:
                if end.error:
                    raise end.error
                return
            if batch:
                await asyncio.sleep(interval_s)
    finally:
        pump.cancel()
        await asyncio.wait({pump}, timeout=RELEASE_S)


async def _pump(stream: AsyncGenerator[StreamEvent, None], inbox: Inbox) -> None:
    """Runs on its own, so that waiting for the engine never keeps a command waiting."""
    try:
        async with aclosing(stream):
            async for event in stream:
                inbox.put_nowait(event)
    except Exception as error:
        inbox.put_nowait(_End(error))
    else:
        inbox.put_nowait(_End())


async def _next_batch(inbox: Inbox) -> tuple[list[StreamEvent | Command], _End | None]:
    batch: list[StreamEvent | Command] = []
    try:
        item = await asyncio.wait_for(inbox.get(), HEARTBEAT_S)
        while not isinstance(item, _End):
            batch.append(item)
            item = inbox.get_nowait()
    except (TimeoutError, asyncio.QueueEmpty):
        return batch, None
    return batch, item

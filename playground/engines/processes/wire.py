"""What the app and the process of an engine say to each other, and the pipe through which they say it.

`process` is the one end, `worker` the other. Knows neither processes nor engines.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic, TypeVar, cast

from playground.adapters.facts import CheckedAdapter
from playground.errors import PlaygroundError
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, LoadProgress, ScoredPiece

BASE = 0
"""The engine that a process was started for. What it attaches has other numbers, each used once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer this; `number` names the answer in all that is said of it, request ids being the users' affair."""

    number: int
    request: GenerationRequest
    engine: int = BASE


@dataclass(frozen=True, slots=True)
class Score:
    """See `Engine.score`; `number` names it as it does an answer."""

    number: int
    request: GenerationRequest
    token_ids: tuple[int, ...]
    engine: int = BASE


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody reads this answer any more, or these scores."""

    number: int


@dataclass(frozen=True, slots=True)
class Abort:
    """See `Engine.abort`."""

    request_id: str
    engine: int = BASE


@dataclass(frozen=True, slots=True)
class Attach:
    """See `Engine.attach`: `Attached` or `NotAttached` will be said of it."""

    engine: int
    adapter: CheckedAdapter
    scale: float
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Close an engine that was attached; `Detached` will be said of it."""

    engine: int


@dataclass(frozen=True, slots=True)
class Close:
    """Stop the engine and end the process."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine serves."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no engine."""

    error: PlaygroundError


@dataclass(frozen=True, slots=True)
class Attached:
    """It serves."""

    engine: int


@dataclass(frozen=True, slots=True)
class NotAttached:
    """It never will."""

    engine: int
    error: PlaygroundError


@dataclass(frozen=True, slots=True)
class Detached:
    """It is closed, and what it took is free."""

    engine: int


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of an answer."""

    number: int
    chunk: GenerationChunk


@dataclass(frozen=True, slots=True)
class Scored:
    """How probable an answer was; nothing else will be said of this number."""

    number: int
    pieces: tuple[ScoredPiece, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """No more of an answer comes, or there are no scores of it."""

    number: int
    error: PlaygroundError | None = None


@dataclass(frozen=True, slots=True)
class MemoryNow:
    """See `Engine.memory`; said when it has changed."""

    devices: tuple[DeviceUse, ...]
    engine: int = BASE


Order = Ask | Score | Cancel | Abort | Attach | Detach | Close
News = LoadProgress | Ready | Failed | Attached | NotAttached | Detached | Said | Scored | Ended | MemoryNow

Out = TypeVar("Out")
In = TypeVar("In")


class Wire(Generic[Out, In]):
    """One end of the pipe. Any thread may send; one receives, and closes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, messages: list[Out]) -> None:
        """All at once, which costs less than one by one. Lost where the other end is gone, as `receive` will tell.

        Waits while the pipe is full.
        """
        with self._sending, suppress(OSError):
            self._connection.send(messages)

    def receive(self) -> list[In] | None:
        """Waits for what comes next; None, and closed, once the other end is gone."""
        try:
            return cast("list[In]", self._connection.recv())
        except (EOFError, OSError):
            with self._sending:
                self._connection.close()
            return None

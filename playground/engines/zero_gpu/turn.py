"""What goes into a grant of the GPU and what comes out of it: small values that pickle.

A stop cannot travel the same way, for what is asked is sent once: so it is a file, which the worker looks for. Made by
`grant` in the page's process, read by `worker` in the one that has the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from inspect import isgeneratorfunction
from pathlib import Path

from playground.adapters.facts import CheckedAdapter
from playground.errors import PlaygroundError
from playground.types import GenerationChunk, GenerationRequest, LoadProgress

Event = LoadProgress | GenerationChunk | PlaygroundError


@dataclass(frozen=True, slots=True)
class Asked:
    """A panel's question, and the adapter that it names, as it was inspected."""

    request: GenerationRequest
    adapter: CheckedAdapter | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """All that is answered in one grant.

    folder: where a file named after a question's number, counted from 0, says that nobody wants its answer any more.
    """

    asked: tuple[Asked, ...]
    folder: Path

    def stop(self, number: int) -> None:
        """From the page's process."""
        (self.folder / str(number)).touch()

    def is_stopped(self, number: int) -> bool:
        """Also where the folder is gone, and with it all who would read an answer."""
        return (self.folder / str(number)).exists() or not self.folder.exists()


@dataclass(frozen=True, slots=True)
class Said:
    """Something about one question, by its number. The last is a chunk with a finish reason, or an error."""

    number: int
    event: Event

    @property
    def is_last(self) -> bool:
        """Whether there is no more to come."""
        match self.event:
            case GenerationChunk():
                return self.event.finish_reason is not None
            case PlaygroundError():
                return True
            case _:
                return False


Task = Callable[[Turn], Iterator[list[Said]]]
"""What a grant runs: a plain generator, for nothing else can be run there."""

Duration = Callable[[Turn], int]
"""Seconds to ask for."""


def require_plain_generator(task: object) -> None:
    """`spaces` refuses coroutines without a word, and takes async generators, whose results then cannot be pickled.

    Raises:
        TypeError: the task is another kind of function.
    """
    if not isgeneratorfunction(task):
        raise TypeError(f"{task!r} is no plain generator function: ZeroGPU runs nothing asynchronous.")


def merged(said: Iterable[Said]) -> list[Said]:
    """The same in fewer pieces: the chunks of each question that follow each other become one."""
    together: list[Said] = []
    latest: dict[int, int] = {}
    for one in said:
        place = latest.get(one.number)
        before = None if place is None else together[place].event
        if place is not None and isinstance(before, GenerationChunk) and isinstance(one.event, GenerationChunk):
            together[place] = Said(one.number, _joined(before, one.event))
        else:
            latest[one.number] = len(together)
            together.append(one)
    return together


def _joined(first: GenerationChunk, second: GenerationChunk) -> GenerationChunk:
    return replace(
        second,
        delta=first.delta + second.delta,
        token_ids=(*first.token_ids, *second.token_ids),
        scores=(*first.scores, *second.scores),
        sent_as=first.sent_as or second.sent_as,
    )

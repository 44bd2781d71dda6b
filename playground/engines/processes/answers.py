"""The answers that come through one process's wire, and who reads them; the wire's end in the app's process.

Used by `process` and `attached`, which are engines to the pool. Knows readers and their event loops, no engine.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from playground.engines.processes.wire import Ask, Cancel, Ended, Order, Said, Score, Scored
from playground.errors import EngineError, PlaygroundError
from playground.types import GenerationChunk, GenerationRequest, ScoredPiece

Heard = Said | Scored | Ended


class Answers:
    """Of all engines in a process, each named by its number on the wire."""

    def __init__(self, tell: Callable[[Order], None]) -> None:
        self._tell = tell
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, _Answer] = {}
        self._refusals: dict[int | None, PlaygroundError] = {}

    def refusal(self, engine: int) -> PlaygroundError | None:
        """Why this engine answers nobody any more; a new one each time, to be raised."""
        kept = self._refusals.get(None) or self._refusals.get(engine)
        return type(kept)(str(kept)) if kept is not None else None

    async def stream(self, engine: int, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See `Engine.stream`."""
        with self._begun(engine) as (number, answer):
            self._tell(Ask(number, request, engine))
            while isinstance(news := await answer.news.get(), Said):
                yield news.chunk
            if isinstance(news, Ended) and news.error is not None:
                raise news.error

    async def score(self, engine: int, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`."""
        with self._begun(engine) as (number, answer):
            self._tell(Score(number, request, tuple(token_ids), engine))
            news = await answer.news.get()
        if isinstance(news, Scored):
            return news.pieces
        raise news.error if isinstance(news, Ended) and news.error else EngineError("The engine said nothing.")

    def hear(self, news: Iterable[Heard]) -> None:
        """Hand on what was said to those who still read."""
        pieces = []
        for piece in news:
            answer = self._open.get(piece.number)
            if not isinstance(piece, Said):
                self._open.pop(piece.number, None)
            if answer is not None:
                pieces.append((answer, piece))
        _deliver(pieces)

    def refuse(self, kind: type[PlaygroundError], sentence: str, engine: int | None = None) -> None:
        """Who is being answered is told; who comes later too, where nobody was told anything else before.

        Args:
            kind: of the error.
            sentence: in it.
            engine: None for all of them.
        """
        with self._lock:
            self._refusals.setdefault(engine, kind(sentence))
            theirs = {number: a for number, a in self._open.items() if engine is None or a.engine == engine}
            self._open = {number: a for number, a in self._open.items() if number not in theirs}
        _deliver((answer, Ended(number, kind(sentence))) for number, answer in theirs.items())

    @contextmanager
    def _begun(self, engine: int) -> Iterator[tuple[int, _Answer]]:
        """The number and the reader of one answer; who leaves before its end is cancelled."""
        number, answer = self._begin(engine)
        try:
            yield number, answer
        finally:
            if self._open.pop(number, None) is not None:
                self._tell(Cancel(number))

    def _begin(self, engine: int) -> tuple[int, _Answer]:
        answer = _Answer(engine)
        with self._lock:
            if (refusal := self.refusal(engine)) is not None:
                raise refusal
            number = next(self._numbers)
            self._open[number] = answer
        return number, answer


class _Answer:
    """Belongs to the event loop that reads it."""

    def __init__(self, engine: int) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self.news: asyncio.Queue[Heard] = asyncio.Queue()


def _deliver(pieces: Iterable[tuple[_Answer, Heard]]) -> None:
    """With one call a loop: each wakes it up."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Answer, Heard]]] = {}
    for answer, news in pieces:
        by_loop.setdefault(answer.loop, []).append((answer, news))
    for loop, its in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody reads any more
            loop.call_soon_threadsafe(_put, its)


def _put(pieces: Iterable[tuple[_Answer, Heard]]) -> None:
    for answer, news in pieces:
        answer.news.put_nowait(news)

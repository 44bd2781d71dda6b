"""What runs where the GPU is: the generator that answers all questions of a turn at once, on the models that lie there.

It runs in a fork of the page's process; what it makes there, engines and their caches, stays with that fork, for
ZeroGPU may use it again for a later turn. Handed to the decorator by the composition; asked through `grant`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from multiprocessing.util import Finalize

from playground.engines.base import Engine
from playground.engines.zero_gpu.place import Placed
from playground.engines.zero_gpu.turn import Asked, Event, Said, Turn, merged
from playground.errors import EngineError, PlaygroundError
from playground.types import EngineLabel, GenerationChunk, LoadProgress

TICK_S = 0.05
"""How often what was said is sent, and stops are looked for."""

CLOSE_BEFORE_THREADS = 10
"""Priority among what a process does at its end: it then waits for threads, and an engine's is no daemon."""

log = logging.getLogger(__name__)


class Crew:
    """The models of the Space, and in a worker their engines.

    Args:
        placed: where each model lies, by its id.
    """

    def __init__(self, placed: Mapping[str, Placed]) -> None:
        self.placed = placed
        self._engines: dict[EngineLabel, Engine] = {}
        self._making = threading.Lock()
        self._is_broken = False

    def answer(self, turn: Turn) -> Iterator[list[Said]]:
        """See `turn.Task`. Ends soon after every answer has ended or been stopped.

        Raises:
            EngineError: something failed that may not heal, so that this worker had better not be used again. Whoever
                asked has been told before.
        """
        yield [Said(number, LoadProgress("start")) for number in range(len(turn.asked))]
        if not self._engines:
            Finalize(None, self._close, exitpriority=CLOSE_BEFORE_THREADS)
        self._dismiss_others(turn.asked)
        with asyncio.Runner() as runner:
            answers = _Answers(self, turn)
            try:
                while said := runner.run(answers.next()):
                    yield said
            finally:
                runner.run(answers.end())
        if self._is_broken:
            raise EngineError("The process with the GPU has failed: another one answers from now on.")

    def engine(self, asked: Asked) -> Engine:
        """The engine for a question, made where it is not there; blocks. Raises PlaygroundError."""
        request, adapter = asked.request, asked.adapter
        placed = self.placed[request.model_id]
        with self._making:
            base = self._made(EngineLabel(request.model_id), placed.start)
            if request.adapter is None or adapter is None:
                return base
            label, scale = EngineLabel(request.model_id, request.adapter), request.adapter.scale
            return self._made(label, lambda: base.attach(adapter, scale, placed.view_tokens))

    def failed(self, asked: Asked, error: Exception) -> PlaygroundError:
        """The sentence for whoever asked."""
        if type(error) is EngineError or not isinstance(error, PlaygroundError):
            self._is_broken = True
        if isinstance(error, PlaygroundError):
            return error
        name = self.placed[asked.request.model_id].spec.name
        log.error("%s: answering", name, exc_info=error)
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        return EngineError(f"{name} failed: {line}. Try again; the log has the details.")

    def _made(self, label: EngineLabel, make: Callable[[], Engine]) -> Engine:
        if label not in self._engines:
            self._engines[label] = make()
        return self._engines[label]

    def _dismiss_others(self, asked: Sequence[Asked]) -> None:
        """Engines with adapters that this turn has no use for: each holds a cache of its own."""
        wanted = {EngineLabel(one.request.model_id, one.request.adapter) for one in asked}
        for label in [label for label in self._engines if label.adapter and label not in wanted]:
            asyncio.run(self._engines.pop(label).close())

    def _close(self) -> None:
        for engine in self._engines.values():
            asyncio.run(engine.close())


class _Answers:
    """All answers of one turn, on the event loop that is run for them; `next` is called until it returns nothing."""

    def __init__(self, crew: Crew, turn: Turn) -> None:
        self._crew = crew
        self._turn = turn
        self._said: list[Said] = []
        self._engines: dict[int, Engine] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def next(self) -> list[Said]:
        """What was said since, a tick later; nothing when all answers have ended and been told."""
        if not self._tasks:
            self._tasks = {n: asyncio.create_task(self._answer(n)) for n in range(len(self._turn.asked))}
        while True:
            running = [task for task in self._tasks.values() if not task.done()]
            if running:
                await self._stop_the_stopped()
                await asyncio.wait(running, timeout=TICK_S, return_when=asyncio.ALL_COMPLETED)
            if self._said or not running:
                said, self._said = self._said, []
                return merged(said)

    async def end(self) -> None:
        """Whoever still answers stops."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _answer(self, number: int) -> None:
        asked = self._turn.asked[number]
        try:
            engine = await asyncio.to_thread(self._crew.engine, asked)
            if self._turn.is_stopped(number):
                self._say(number, GenerationChunk("", "abort"))
                return
            self._engines[number] = engine
            async with aclosing(engine.stream(asked.request)) as chunks:
                async for chunk in chunks:
                    self._say(number, chunk)
        except Exception as error:
            self._say(number, self._crew.failed(asked, error))

    async def _stop_the_stopped(self) -> None:
        for number, engine in self._engines.items():
            if not self._tasks[number].done() and self._turn.is_stopped(number):
                await engine.abort(self._turn.asked[number].request.request_id)

    def _say(self, number: int, event: Event) -> None:
        self._said.append(Said(number, event))

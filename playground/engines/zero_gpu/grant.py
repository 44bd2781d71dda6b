"""One grant of the GPU as the page's process sees it: the panels that were asked at once, and the thread that listens.

The first panel whose stream comes starts it for all; each takes what is its own, whenever it comes. Made by the pool.
Knows no model; of ZeroGPU only what a task is.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from playground.adapters.facts import CheckedAdapter
from playground.engines.zero_gpu.mailbox import Mailbox
from playground.engines.zero_gpu.refusals import sentence
from playground.engines.zero_gpu.turn import Asked, Event, Said, Task, Turn
from playground.errors import EngineError, PlaygroundError
from playground.types import GenerationChunk, GenerationRequest, LoadProgress

NO_END = "The GPU's process stopped in the middle of its answer without saying why: send again."

FindAdapter = Callable[[GenerationRequest], CheckedAdapter | None]
"""The adapter that a request names; blocks until it is inspected. Raises PlaygroundError."""

log = logging.getLogger(__name__)


class Part:
    """What one panel has of a grant.

    Attributes:
        has_reader: whether its stream has come.
        has_left: whether it was closed.
        is_unwanted: whether nobody wants more of its answer.
        is_over: whether its last event has come.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.has_reader = self.has_left = self.is_unwanted = self.is_over = False
        self._lock = threading.Lock()
        self._mail: Mailbox[Event] = Mailbox()

    def put(self, event: Event) -> None:
        """From any thread; what comes after the last event is dropped."""
        with self._lock:
            if not self.is_over:
                self.is_over = Said(0, event).is_last
                self._mail.put(event)

    async def events(self) -> AsyncGenerator[LoadProgress | GenerationChunk, None]:
        """To the end of the answer. Raises PlaygroundError."""
        while True:
            for event in await self._mail.take():
                if isinstance(event, PlaygroundError):
                    raise event
                yield event
                if isinstance(event, GenerationChunk) and event.finish_reason:
                    return


class Grant:
    """
    Args:
        requests: asked at once.
        task: what runs where the GPU is, once it was decorated.
        find_adapter: asked in the grant's thread.
        join_s: seconds that streams may come after the first; whose has not come by then is not answered.

    Attributes:
        parts: what each request has of it, by the request's id.
        ended: set when nothing of it runs any more.
    """

    def __init__(
        self, requests: Sequence[GenerationRequest], task: Task, find_adapter: FindAdapter, join_s: float
    ) -> None:
        self.parts = {request.request_id: Part(request) for request in requests}
        self.ended = threading.Event()
        self._task = task
        self._find_adapter = find_adapter
        self._join_s = join_s
        self._lock = threading.Lock()
        """Held to look at the next three and at who is unwanted, so that a stop is in the turn or in its folder."""
        self._turn: Turn | None = None
        self._numbered: list[Part] = []
        self._has_begun = False

    @property
    def is_settled(self) -> bool:
        """Whether no stream can come for it any more."""
        return all(part.has_reader or part.is_unwanted for part in self.parts.values())

    def start(self) -> None:
        """In a thread with the caller's context, where `spaces` finds the visitor whose quota it is."""
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=[self._run], name="zero-gpu-grant", daemon=True).start()

    def stop(self, part: Part) -> None:
        """Its answer ends where it is: at once while the GPU is waited for. May be repeated; from any thread."""
        with self._lock:
            part.is_unwanted = True
            if not self._has_begun:
                part.put(GenerationChunk("", "abort"))
            if self._turn is not None and part in self._numbered:
                self._turn.stop(self._numbered.index(part))

    def leave(self, part: Part) -> None:
        """Its stream was closed, or came to its end."""
        part.has_left = True
        self.stop(part)

    def stop_all(self, why: PlaygroundError) -> None:
        """End everything; who still reads is told."""
        for part in self.parts.values():
            part.put(why)
            self.stop(part)

    # From here on in the grant's own thread.

    def _run(self) -> None:
        absent = threading.Timer(self._join_s, self._stop_absent)
        absent.daemon = True
        absent.start()
        error: PlaygroundError = EngineError(NO_END)
        try:
            asked = list(self._inspected())
            with TemporaryDirectory(prefix="zero-gpu-") as folder:
                self._listen(self._open(asked, Path(folder)))
        except BaseException as raised:
            error = sentence(raised)
            log.warning("a grant of the GPU: %s", error, exc_info=not hasattr(raised, "title"))
        finally:
            for part in self.parts.values():
                part.put(error)
            self.ended.set()

    def _stop_absent(self) -> None:
        for part in self.parts.values():
            if not part.has_reader:
                self.stop(part)

    def _inspected(self) -> Iterator[tuple[Part, Asked]]:
        """Who names an adapter that cannot be had is told so; the others go on, while they are wanted."""
        for part in self.parts.values():
            if part.is_unwanted:
                continue
            try:
                adapter = self._find_adapter(part.request)
            except PlaygroundError as error:
                part.put(error)
            else:
                yield part, Asked(part.request, adapter)

    def _open(self, asked: Sequence[tuple[Part, Asked]], folder: Path) -> Turn:
        """What is still wanted of it; from now on stops go into the folder."""
        with self._lock:
            wanted = [(part, one) for part, one in asked if not part.is_unwanted]
            self._numbered = [part for part, _ in wanted]
            self._turn = Turn(tuple(one for _, one in wanted), folder)
            return self._turn

    def _listen(self, turn: Turn) -> None:
        """Asks for the GPU, unless nobody is left who wants it."""
        try:
            if not turn.asked:
                return
            with closing(cast(Any, self._task(turn))) as news:
                for said in news:
                    with self._lock:
                        self._has_begun = True
                    for one in said:
                        self._numbered[one.number].put(one.event)
                    if all(part.has_left for part in self._numbered):
                        return
        finally:
            with self._lock:
                self._turn = None

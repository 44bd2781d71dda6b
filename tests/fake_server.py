"""A server elsewhere as it rarely is: it stalls, cuts, refuses, redirects, talks nonsense, or gives away the key.

Speaks HTTP on loopback from a thread of its own, so that tests with and without an event loop can use it. What it
answers is a function of what it is asked; it keeps all that it was asked, and knows when a client has gone.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

STALL: Literal["stall"] = "stall"
"""Say no more, and keep the connection open until the client has gone."""
CUT: Literal["cut"] = "cut"
"""Break the connection off."""


Step = Mapping[str, Any] | str | bytes | threading.Event


@dataclass(frozen=True)
class Asked:
    """A request as it came; `body` is its JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def in_chat(self) -> bool:
        return self.path.endswith("/chat/completions")


@dataclass(frozen=True)
class Reply:
    """An answer that is no stream; a mapping or list becomes JSON."""

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """A stream of events: a mapping is one event, text or bytes go out as they are, an Event is waited for."""

    steps: Iterable[Step]
    content_type: str = "text/event-stream"


Answer = Callable[[Asked], Reply | Stream]


class FakeServer:
    """`asked` is what came, in order; `gone` is set once a client left before its answer was over."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.gone = threading.Event()
        self.stalled = threading.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def bodies(self, route: str = "completions") -> list[Any]:
        """What the questions of one route asked."""
        return [each.body for each in self.asked if each.path == f"/v1/{route}"]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which has one request."""
        self.writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            asked = await _read(reader, writer)
            self.asked.append(asked)
            answer = self.answer(asked)
            if isinstance(answer, Reply):
                writer.write(_reply(answer))
            else:
                await self._stream(answer, reader, writer)
            await writer.drain()
        writer.close()

    async def _stream(self, answer: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leaving = asyncio.ensure_future(_left(reader))
        try:
            writer.write(_head(200, {"content-type": answer.content_type, "transfer-encoding": "chunked"}))
            for step in answer.steps:
                if step == CUT:
                    return
                await self._take(step, leaving, writer)
            writer.write(_part(b""))
        except ConnectionError:
            self.gone.set()
        finally:
            leaving.cancel()

    async def _take(self, step: Step, leaving: asyncio.Future[None], writer: asyncio.StreamWriter) -> None:
        if isinstance(step, threading.Event):
            await asyncio.to_thread(step.wait, 30)
        elif step == STALL:
            self.stalled.set()
            await leaving
        else:
            writer.write(_part(_event(step)))
            await writer.drain()
        if leaving.done():
            raise ConnectionError


@contextmanager
def fake_server(answer: Answer) -> Iterator[FakeServer]:
    """The server, while it runs."""
    server, ready, over = FakeServer(answer), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server, ready, over)), name="fake-server")
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        over.set()
        thread.join()


async def _serve(server: FakeServer, ready: threading.Event, over: threading.Event) -> None:
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    ready.set()
    await asyncio.to_thread(over.wait)
    listener.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for writer in server.writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def _left(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    first = await reader.readexactly(1)
    if not first.isalpha():  # it speaks TLS
        writer.write(_reply(Reply(400)))
        raise ConnectionError
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, json.loads(body) if body else None)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items()), "connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


def _reply(reply: Reply) -> bytes:
    text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    kind = "text/plain" if isinstance(reply.body, str) else "application/json"
    body = text.encode()
    return _head(reply.status, {"content-type": kind, "content-length": str(len(body)), **reply.headers}) + body


def _part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(step: Mapping[str, Any] | str | bytes) -> bytes:
    if isinstance(step, Mapping):
        return f"data: {json.dumps(step, ensure_ascii=False)}\n\n".encode("utf-8", "surrogatepass")
    return step if isinstance(step, bytes) else step.encode()


def chunk(asked: Asked, text: str | None = "", finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """An event of an answer, in the API that was asked; `more` goes into its choice."""
    words = {"delta": {"content": text}} if asked.in_chat else {"text": text}
    return {"id": "1", "object": "chunk", "choices": [{"index": 0, "finish_reason": finish_reason, **words, **more}]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The event that tells the cost."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "1", "object": "chunk", "choices": [], "usage": counts}


def says(*pieces: str, finish_reason: str | None = "stop") -> Answer:
    """Answers both APIs with these pieces, as they should."""

    def answer(asked: Asked) -> Stream:
        begin = [chunk(asked, None, **{"delta": {"role": "assistant"}})] if asked.in_chat else []
        end = [chunk(asked, "", finish_reason), usage(7, len(pieces)), "data: [DONE]\n\n"] if finish_reason else []
        return Stream([*begin, *(chunk(asked, piece) for piece in pieces), *end])

    return answer


def streams(*steps: Any) -> Answer:
    """Answers both APIs with these steps; a tuple is the arguments of `chunk`."""
    return lambda asked: Stream([chunk(asked, *step) if isinstance(step, tuple) else step for step in steps])


def refuses(status: int, body: Any = "", **headers: str) -> Answer:
    """Answers with an error."""
    return lambda asked: Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def in_turn(*answers: Answer) -> Answer:
    """Answers the first question with the first, and so on; the last one again and again."""
    left = list(answers)
    return lambda asked: (left.pop(0) if len(left) > 1 else left[0])(asked)

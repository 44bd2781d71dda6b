"""The page over plain HTTP, as a browser sends and reads it, without the browser: for many visitors at once.

`PageMap` finds the page's events in its config; a `RawSession` is one open page: it presses Send, follows its panels,
presses Stop, or vanishes.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from random import SystemRandom
from typing import Any

import httpx
from gradio_client.utils import apply_diff
from markup import read

API = "gradio_api"

SPOKEN = ("answering", "ended", "stopped", "length")
"""How the lines begin that stand under some of an answer, or under its end."""


class PageMap:
    """Which event of the page's config is which, and what its fields hold at first."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._parts = {part["id"]: part for part in config["components"]}
        self._events = config["dependencies"]
        send = self._with_id("send")
        self.ask = next(event for event in self._events if [send, "click"] in event["targets"])
        self.load = next(event for event in self._events if event["backend_fn"] and "load" in _triggers(event))
        after = [event for event in self._events if event["trigger_after"] == self.ask["id"]]
        self.streams = [event for event in after if self._kinds(event["outputs"]) == ["state", "chatbot"]]
        stop = self._with_id("stop-all")
        self.stop = next(event for event in self._events if [stop, "click"] in event["targets"])

    @classmethod
    async def read(cls, http: httpx.AsyncClient) -> PageMap:
        answer = await http.get("/config")
        answer.raise_for_status()
        return cls(answer.json())

    def inputs(self, event: dict[str, Any], **values: Any) -> list[Any]:
        """What its fields hold, but for those named here by their label or id; states are the server's."""
        return [self._value(part, values) for part in event["inputs"]]

    def _value(self, place: int, values: dict[str, Any]) -> Any:
        part = self._parts[place]
        if part["type"] == "state":
            return None
        properties = part["props"]
        for name in (properties.get("elem_id"), properties.get("label")):
            if name in values:
                return values[name]
        return properties.get("value")

    def _with_id(self, elem_id: str) -> int:
        return next(place for place, part in self._parts.items() if part["props"].get("elem_id") == elem_id)

    def _kinds(self, places: list[int]) -> list[str]:
        return [self._parts[place]["type"] for place in places]


def _triggers(event: dict[str, Any]) -> list[str]:
    return [trigger for _, trigger in event["targets"]]


@dataclass
class PanelSeen:
    """What one panel showed: its last chat, every line under it, and when each was first seen, from Send on.

    heard: when it said something new: a place in line, more of the answer, its end; a clock that ticks says nothing.
    over_s: when it was over, in the same seconds; infinite while it is not.
    """

    chat: list[dict[str, Any]] = field(default_factory=list)
    feet: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    over_s: float = math.inf
    _said: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.over_s < math.inf

    @property
    def answer(self) -> str:
        parts = self.chat[-1]["content"][:-1] if self.chat else []
        return "".join(read(part["text"]).text for part in parts)

    @property
    def text(self) -> str:
        """All that is in it."""
        return " ".join(read(part["text"]).text for message in self.chat for part in message["content"])

    @property
    def positions(self) -> list[int]:
        """The places in line that it was told, in order."""
        told = [foot.split("Waiting: ")[1].split(" in line")[0] for foot in self.feet if "Waiting: " in foot]
        return [int(place.rstrip("stndrh")) for place in told]

    def see(self, chat: list[dict[str, Any]], seconds: float) -> None:
        self.chat = chat
        foot = read(chat[-1]["content"][-1]["text"]).text if chat else ""
        if not self.feet or foot != self.feet[-1]:
            self.feet.append(foot)
            self.seconds.append(seconds)
        said = (*(part["text"] for part in chat[-1]["content"][:-1]), foot) if chat else ()
        if is_word(foot) and said != self._said:
            self._said = said
            self.heard.append(seconds)

    def silences_s(self, left_s: float = math.inf) -> list[float]:
        """From Send to the first word, from each to the next, and from the last to its end, or to when nobody listened
        any more. Infinite where it ended without a word."""
        end_s = min(self.over_s, left_s)
        if not self.heard and end_s < left_s:
            return [math.inf]
        return [later - earlier for earlier, later in pairwise([0.0, *self.heard, end_s])]


def is_word(foot: str) -> bool:
    """Whether the line under an answer tells more than that one has to wait."""
    return foot.startswith(("Waiting: ", *SPOKEN))


class RawSession:
    """One visitor with an open page. `address` is where it says that it comes from, as a proxy would."""

    def __init__(self, http: httpx.AsyncClient, page: PageMap, address: str) -> None:
        self.hash = f"{SystemRandom().getrandbits(52):x}"
        self.hint = ""
        self._http = http
        self._page = page
        self._headers = {"x-forwarded-for": address}
        self._begun = 0.0

    @property
    def seconds(self) -> float:
        """Since Send was pressed."""
        return time.monotonic() - self._begun

    async def open(self) -> None:
        """What a browser asks for when it opens the page: for the server, the session begins here."""
        await self._run(self._page.load)

    async def send(self, prompt: str, **fields: Any) -> bool:
        """Press Send; whether the prompt was taken. What the page says otherwise is `hint`."""
        self._begun = time.monotonic()
        said = await self._run(self._page.ask, prompt=prompt, **fields)
        self.hint = read(said[2]).text if isinstance(said[2], str) else ""
        return said[0] == ""

    async def stop(self) -> None:
        """Press Stop all."""
        await self._run(self._page.stop)

    async def follow(self, panels: int = 2) -> list[PanelSeen]:
        """The first panels' answers, to their ends."""
        seen = [PanelSeen() for _ in range(panels)]
        async with aclosing(self.watch(seen)) as steps:
            async for _ in steps:
                pass
        return seen

    async def watch(self, seen: list[PanelSeen]) -> AsyncIterator[None]:
        """A step each time that something came. Closing this closes the connection, as a browser does that is shut."""
        events = {await self._join(place): panel for place, panel in enumerate(seen)}
        outputs: dict[str, list[Any]] = {}
        query = {"session_hash": self.hash}
        async with self._http.stream("GET", f"/{API}/queue/data", params=query, headers=self._headers) as lines:
            async for line in lines.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if panel := events.get(message.get("event_id") or ""):
                    self._take(panel, message, outputs)
                    yield
                if all(panel.is_over for panel in seen):
                    return

    def _take(self, panel: PanelSeen, message: dict[str, Any], outputs: dict[str, list[Any]]) -> None:
        told = message.get("output") or {}
        if message["msg"] == "process_generating":
            before = outputs.get(message["event_id"])
            data = told["data"]
            if before is not None:
                data = [apply_diff(old, new) for old, new in zip(before, data, strict=True)]
            outputs[message["event_id"]] = data
            if isinstance(data[1], list):
                panel.see(data[1], self.seconds)
        elif message["msg"] == "process_completed":
            assert message["success"], told
            panel.over_s = self.seconds

    async def _run(self, event: dict[str, Any], **fields: Any) -> list[Any]:
        body = {"fn_index": event["id"], "data": self._page.inputs(event, **fields), "session_hash": self.hash}
        answer = await self._http.post(f"/{API}/run/predict", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text
        data: list[Any] = answer.json()["data"]
        return data

    async def _join(self, panel: int) -> str:
        event = self._page.streams[panel]
        body = {"fn_index": event["id"], "data": self._page.inputs(event), "session_hash": self.hash}
        answer = await self._http.post(f"/{API}/queue/join", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text
        event_id: str = answer.json()["event_id"]
        return event_id


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Looks a hundred times a second."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)

"""What a crowd costs: `python tests/benchmarks/load.py` runs the app as a Space of the cpu-basic profile would, and has
50 visitors open the page, then all press Send at once, several times over.

Each has an address and a prompt of its own; some press Stop, some vanish while they wait or are answered. Printed: the
longest that each heard nothing new (between Send, the places in line, the words of the answer and its end), who had to
wait for the answer and was told no place, how long they waited, whether everybody got the answer that the models give
to that prompt alone and nothing else, and the memory of the app with its engines.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from crowd import Manner, Visit, come  # noqa: E402
from markup import read  # noqa: E402
from serving import free_port, run_app, stop_app  # noqa: E402

from model_registry.demo.corpus import load_language, pairs  # noqa: E402
from model_registry.demo.standins import STAND_INS  # noqa: E402
from playground.limits import PUBLIC  # noqa: E402
from playground.settings import OPTIONS  # noqa: E402
from spaces_config.profile import find_profile  # noqa: E402

GREEDY = {"Temperature": 0}
MANNERS: Sequence[Manner] = ("stays",) * 6 + ("stops", "leaves while answered", "leaves in line", "stays")
SAMPLE_S = 0.5
COLUMNS = (
    "wave",
    "taken / left / stopped",
    "told a place",
    "late and told none",
    "longest silence, median and longest (s)",
    "after the first word (s)",
    "answer begins, median and longest (s)",
    "wrong",
    "whole wave (s)",
    "memory (MB)",
)

SPACE = {"SPACE_ID": "somebody/krutrim-vs-kullm3", "SYSTEM": "spaces"}
"""What Hugging Face sets for every Space, as far as it matters here."""


class Memory:
    """The proportional set size of the app and all its processes, in MB, twice a second."""

    def __init__(self, pid: int) -> None:
        self._app = psutil.Process(pid)
        self._ended = threading.Event()
        self.peak = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def now(self) -> float:
        total = 0
        for process in (self._app, *self._app.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak = max(self.peak, self.now())

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--waves", type=int, default=3)
    options = parser.parse_args()
    os.environ.update(SPACE, **{OPTIONS: find_profile("cpu-basic").options()})
    port = free_port()
    app = run_app(port, "--host", "127.0.0.1")
    try:
        asyncio.run(report(f"http://127.0.0.1:{port}", app.pid, options.sessions, options.waves))
    finally:
        stop_app(app)


async def report(url: str, pid: int, sessions: int, waves: int) -> None:
    prompts = different_prompts(sessions)
    alone = {prompt: await answers_alone(url, prompt, number) for number, prompt in enumerate(prompts)}
    memory = Memory(pid)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    print(f"| before | | | | | | | | | {memory.now():.0f} |", flush=True)
    for wave in range(waves):
        visits = [Visit(prompt, manner) for prompt, manner in zip(prompts, manners(sessions, wave), strict=True)]
        begun = time.monotonic()
        await come(url, visits, **GREEDY)
        print(f"| {wave + 1}. {row(visits, alone)} | {time.monotonic() - begun:.0f} | {memory.now():.0f} |", flush=True)
    await asyncio.sleep(5)
    free = [Visit(prompt, "stays") for prompt in prompts[: PUBLIC.places]]
    await come(url, free, **GREEDY)
    print(f"| after | | {sum(visit.was_told for visit in free)} of {len(free)} | | | | | | | {memory.now():.0f} |")
    memory.end()
    print(f"\nPeak of memory: {memory.peak:.0f} MB.")


def different_prompts(count: int) -> list[str]:
    """Prompts that the first stand-in was taught answers to, all different."""
    stand_in = STAND_INS["krutrim"]
    known = [ask for language in stand_in.languages for ask, _ in pairs(load_language(language), stand_in.words())]
    different = sorted(set(known))
    return Random(0).sample(different, count)


async def answers_alone(url: str, prompt: str, number: int) -> list[str]:
    visit = Visit(prompt, "stays")
    await come(url, [visit], number, **GREEDY)
    return [panel.answer for panel in visit.seen]


def manners(count: int, seed: int) -> list[Manner]:
    return Random(seed).choices(MANNERS, k=count)


def row(visits: Sequence[Visit], alone: dict[str, list[str]]) -> str:
    taken = [visit for visit in visits if not visit.hint]
    ends = {end: sum(visit.ended == end for visit in taken) for end in MANNERS}
    waits = [visit.waits_s for visit in taken if visit.ended == "stays"]
    silences = [visit.silence_s for visit in taken]
    left = ends["leaves in line"] + ends["leaves while answered"]
    return (
        f"| {len(taken)} / {left} / {ends['stops']} | {sum(visit.was_told for visit in taken)} "
        f"| {sum(visit.was_kept_in_the_dark for visit in taken)} "
        f"| {statistics.median(silences):.1f}, {max(silences):.1f} "
        f"| {max(visit.later_silence_s for visit in taken):.1f} | {statistics.median(waits):.1f}, {max(waits):.1f} "
        f"| {sum(is_wrong(visit, alone[visit.prompt]) for visit in taken)}"
    )


def is_wrong(visit: Visit, alone: Sequence[str]) -> bool:
    """Whether it saw another answer than its own, another's prompt, a line that went backward, or never a word."""
    if math.isinf(visit.silence_s):
        return True
    for panel, expected in zip(visit.seen, alone, strict=True):
        is_whole = panel.answer == expected if visit.ended == "stays" else expected.startswith(panel.answer)
        prompts = [read(message["content"][0]["text"]).text for message in panel.chat if message["role"] == "user"]
        is_forward = panel.positions == sorted(panel.positions, reverse=True)
        if not is_whole or not is_forward or prompts not in ([], [visit.prompt]):
            return True
    return False


if __name__ == "__main__":
    main()

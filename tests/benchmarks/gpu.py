"""Both models at full size on one GPU, both streaming at once: `python tests/benchmarks/gpu.py`.

Random weights, made on the device. Prints tokens a second of each panel, alone and together, from engines in processes
of their own (as the app runs them) and in one process; the same from plain `generate`, in one thread and in two of one
process; and how near that comes to the limit that the card's memory bandwidth sets, measured by a large copy. Checks
that greedy answers are the same everywhere. Without a GPU it runs on the CPU with small sizes, to show that it runs.
Ends with 1 where a check or a part failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

import torch  # noqa: E402
import transformers  # noqa: E402
from pace import Pace, PlainStreamer, both, first_difference  # noqa: E402
from random_models import engine_of, meta_bytes, placement, random_engine, random_model, specs  # noqa: E402

from model_registry.spec import ModelSpec  # noqa: E402
from playground.engines.base import Engine  # noqa: E402
from playground.engines.process import start_engine  # noqa: E402
from playground.engines.processes.child_process import prepare  # noqa: E402
from playground.types import GenerationRequest, Message, SamplingParams  # noqa: E402

SAMPLED: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "seed": 1}
GREEDY: dict[str, Any] = {"temperature": 0.0}
AIM_OF_LIMIT, AIM_OVER_THREADS = 0.8, 3.0
LARGEST_ERROR = 2e-2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a GPU too")
    parser.add_argument("--tokens", type=int, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], help="parts to leave out: processes, threads, graphs, logits")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    prepare()
    bench = Bench(options)
    bench.run()
    if options.json:
        options.json.write_text(json.dumps(bench.figures, indent=2) + "\n", encoding="utf-8")
    return 1 if bench.faults else 0


class Bench:
    """The parts in turn; each may fail by itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.on_gpu = torch.cuda.is_available()
        self.small = options.small or not self.on_gpu
        self.device = "cuda:0" if self.on_gpu else "cpu"
        self.tokens = options.tokens or (48 if self.small else 256)
        self.repeats = options.repeats
        self.skip = options.skip
        self.specs = specs(small=self.small)
        self.figures: dict[str, Any] = {}
        self.texts: dict[str, dict[str, str]] = {}
        self.faults: list[str] = []

    def run(self) -> None:
        self.part("machine", self.machine)
        self.part("bandwidth", self.bandwidth)
        self.part("processes", self.processes)
        self.part("threads", self.threads_and_one_process)
        self.part("logits", self.logits)
        self.part("answers", self.compare_answers)
        self.part("summary", self.summarise)

    def part(self, name: str, run: Callable[[], None]) -> None:
        if name in self.skip:
            return
        say(f"\n== {name}")
        begun = time.perf_counter()
        try:
            run()
        except Exception:
            self.fault(f"{name} did not run to its end:\n{traceback.format_exc()}")
        say(f"   ({time.perf_counter() - begun:.1f} s)")
        if self.on_gpu:
            torch.cuda.empty_cache()

    def fault(self, what: str) -> None:
        self.faults.append(what)
        say(f"FAULT: {what}")

    def machine(self) -> None:
        card = torch.cuda.get_device_name(0) if self.on_gpu else "no GPU: small sizes on the CPU"
        about = {"card": card, "torch": torch.__version__, "transformers": transformers.__version__}
        self.figures["machine"] = {**about, "python": sys.version.split()[0], "tokens": self.tokens}
        say(", ".join(f"{key} {value}" for key, value in self.figures["machine"].items()))
        if self.small:
            say("small sizes: the figures say nothing about the real models")

    def bandwidth(self) -> None:
        """Bytes read and written a second by a copy from device to device; the limits that follow."""
        size = 1 << (32 if self.on_gpu and not self.small else 26)
        source = torch.ones(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = sorted(timed(lambda: target.copy_(source), self.device) for _ in range(12))[5]
        rate = 2 * size / seconds
        limits = {spec.id: meta_bytes(spec) / rate for spec in self.specs}
        self.figures["bandwidth"] = {"bytes_per_second": rate, "seconds_per_token": limits}
        say(f"copy: {rate / 1e12:.3f} TB/s")
        for spec in self.specs:
            say(f"{spec.id}: {meta_bytes(spec) / 1e9:.2f} GB, at most {1 / limits[spec.id]:.1f} tokens/s alone")
        say(f"both at once: at most {1 / sum(limits.values()):.1f} tokens/s in each panel")

    def processes(self) -> None:
        """The app's way: start_engine, one process a model, both loading at once."""
        with ThreadPoolExecutor() as pool:
            begun = time.perf_counter()
            engines = list(pool.map(self.start, self.specs))
        say(f"both loaded in {time.perf_counter() - begun:.1f} s")
        asyncio.run(self.measure("processes", engines))

    def start(self, spec: ModelSpec) -> Engine:
        place = placement(spec, self.device)
        return start_engine(spec, place, lambda progress: None, threading.Event(), load=random_engine)

    async def measure(self, where: str, engines: list[Engine]) -> None:
        try:
            for engine in engines:
                await answer(engine, self.tokens, GREEDY, number=9)  # the first one warms up
                self.note(where, "alone", {engine.model_id: await answer(engine, self.tokens, GREEDY)})
                self.note(where, "alone, sampled", {engine.model_id: await answer(engine, self.tokens, SAMPLED)})
            for how, sampling in (("together", GREEDY), ("together, sampled", SAMPLED)):
                for number in range(self.repeats):
                    paces = await asyncio.gather(*(answer(e, self.tokens, sampling, number=number) for e in engines))
                    self.note(where, how, {e.model_id: p for e, p in zip(engines, paces, strict=True)}, number)
        finally:
            for engine in engines:
                await engine.close()

    def threads_and_one_process(self) -> None:
        """What a user would write: `generate`, in one thread and in two. Then our engines on these models."""
        models = {spec.id: random_model(spec, self.device) for spec in self.specs}
        for name, model in models.items():
            generate(model, 8)
            self.note("generate", "alone", {name: generate(model, self.tokens)})
        with ThreadPoolExecutor(2) as pool:
            for number in range(self.repeats):
                paces = pool.map(lambda model: generate(model, self.tokens, number=number), models.values())  # noqa: B023
                self.note("generate", "together", dict(zip(models, paces, strict=True)), number)
        engines: list[Engine] = [engine_of(models[spec.id], spec) for spec in self.specs]
        asyncio.run(self.measure("one process", engines))
        if self.on_gpu and "graphs" not in self.skip:
            plain = {"cuda_graphs": False, "async_batching": False}
            engines = [engine_of(models[spec.id], spec, **plain) for spec in self.specs]
            asyncio.run(self.measure("one process, no graphs", engines))

    def note(self, where: str, how: str, paces: dict[str, Pace], number: int = 0) -> None:
        """Keep and print speeds in tokens a second: while both write, where there are two."""
        speeds = both(paces) if len(paces) > 1 else {name: pace.speed for name, pace in paces.items()}
        for name, pace in paces.items():
            entry = self.figures.setdefault(where, {}).setdefault(how, {}).setdefault(name, [])
            entry.append({"tokens_per_second": speeds[name], "first_token_s": pace.first_token_s})
            question = f"{name}, question {number}{', sampled' if 'sampled' in how else ''}"
            self.texts.setdefault(question, {})[f"{where}, {how}"] = pace.text
            say(
                f"{where:24}{how:20}{name:10}{speeds[name]:8.1f} tokens/s, "
                f"first after {1000 * pace.first_token_s:.0f} ms{self.share(name, speeds[name])}"
            )
        if len(paces) > 1:
            say(f"{where:24}{how:20}of the limit for both: {self.of_limit(speeds):.2f}")

    def share(self, name: str, speed: float) -> str:
        limits = self.figures.get("bandwidth", {}).get("seconds_per_token", {})
        return f", {speed * limits[name]:.2f} of its limit" if name in limits else ""

    def of_limit(self, speeds: dict[str, float]) -> float:
        """The part of each second that the card needs for these speeds, at the least."""
        limits = self.figures["bandwidth"]["seconds_per_token"]
        return sum(speed * limits[name] for name, speed in speeds.items())

    def logits(self) -> None:
        """The port in 16 bits on the device against float32 on the CPU, with the same (16-bit) weights, few layers."""
        spec = self.specs[0].model_copy(update={"dtype": "bfloat16"})
        low = random_model(spec, "cpu", layers=2)
        ids = torch.randint(1, spec.dimensions.vocab_size, (1, 256), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            theirs = low.to(self.device)(ids.to(self.device)).logits.float().cpu()
            ours = low.float().cpu()(ids).logits
        error = float((theirs - ours).norm() / ours.norm())
        self.figures["logits"] = {"relative_error": error, "device": self.device}
        say(f"bfloat16 on {self.device} against float32 on the CPU: relative error {error:.2e}")
        if not error < LARGEST_ERROR:
            self.fault(f"the relative error of the logits is {error:.2e}, and may be {LARGEST_ERROR}")

    def compare_answers(self) -> None:
        """Ours must be the same everywhere; `generate` rounds differently in 16 bits, so it is only told."""
        for name, texts in self.texts.items():
            ours = {where: text for where, text in texts.items() if not where.startswith("generate")}
            first = next(iter(ours.values()), "")
            for where, text in texts.items():
                if text != first:
                    place = f"{name}: {where} differs from token {first_difference(first, text)} on"
                    self.fault(place) if where in ours else say(place)
            say(f"{name}: {len(texts)} answers compared")

    def summarise(self) -> None:
        summary = self.figures["summary"] = {}
        for where in ("processes", "one process", "one process, no graphs", "generate"):
            if runs := self.figures.get(where, {}).get("together"):
                speeds = {name: median([run["tokens_per_second"] for run in its]) for name, its in runs.items()}
                summary[where] = {**speeds, "both": sum(speeds.values()), "of_limit": self.of_limit(speeds)}
                say(f"{where:24}{json.dumps({key: round(value, 3) for key, value in summary[where].items()})}")
        ours, plain = summary.get("processes"), summary.get("generate")
        if ours and plain:
            summary["over_threads"] = ours["both"] / plain["both"]
            say(f"of the limit, together: {ours['of_limit']:.2f} (aim {AIM_OF_LIMIT})")
            say(f"over two threads of generate: {summary['over_threads']:.2f} (aim {AIM_OVER_THREADS})")
        for fault in self.faults:
            say(f"FAULT: {fault.splitlines()[0]}")


def prompt(number: int) -> str:
    """Sixty-four tokens; other ones for each number, so that no engine has them in its cache already."""
    return " ".join(f"w{word}" for word in range(100 + 70 * number, 164 + 70 * number))


async def answer(engine: Engine, tokens: int, sampling: dict[str, Any], *, number: int = 0) -> Pace:
    pace = Pace()
    request = GenerationRequest(
        model_id=engine.model_id,
        messages=(Message(role="user", content=prompt(number)),),
        sampling=SamplingParams(max_new_tokens=tokens, **sampling),
    )
    async for chunk in engine.stream(request):
        assert chunk.usage is not None
        pace.add(chunk.delta, chunk.usage.completion_tokens)
    return pace


def generate(model: Any, tokens: int, *, number: int = 0) -> Pace:
    streamer = PlainStreamer()
    ids = torch.tensor([[int(word[1:]) for word in prompt(number).split()]], device=model.device)
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, streamer=streamer
        )
    return streamer.pace


def timed(run: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

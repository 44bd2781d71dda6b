"""Both models at full size on one GPU, both streaming at once: `python tests/benchmarks/gpu.py`.

Random weights, made on the device. Prints tokens a second and the time to the first token of each panel, alone and
together, from engines in processes of their own (as the app runs them) and in one process; the same from plain
`generate`, in one thread and in two of one process; and how near that comes to the limit that the card's memory
bandwidth sets, measured by a large copy. Checks that greedy answers are the same everywhere. Without a GPU it runs on
the CPU with small sizes, to show that it runs. Ends with 1 where a check or a part failed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import math
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

import torch  # noqa: E402
import transformers  # noqa: E402
from answers import (  # noqa: E402
    ASPECTS,
    LARGEST_ERROR,
    NO_GRAPHS,
    PLAIN,
    Answers,
    Difference,
    Question,
    Way,
    margin,
    tokens_of,
    verdict,
)
from asking import answer, generate, prompt  # noqa: E402
from figures import Run, lines, of_limit, summary  # noqa: E402
from gpu_options import parse  # noqa: E402
from pace import Pace, both  # noqa: E402
from random_models import deepest, engine_of, meta_bytes, placement, random_engine, random_model, specs  # noqa: E402

from model_registry.spec import ModelSpec  # noqa: E402
from playground.engines.base import Engine  # noqa: E402
from playground.engines.checkpoints.attention import attention_for  # noqa: E402
from playground.engines.process import start_engine  # noqa: E402
from playground.engines.processes.child_process import prepare  # noqa: E402
from playground.placement.devices import find_device  # noqa: E402

HOWS = ("alone", "together", "alone, sampled", "together, sampled")
LOGITS_TOKENS = 256
WARM_UP = -1


def main() -> int:
    options = parse(__doc__)
    prepare()
    bench = Bench(options)
    bench.run()
    if options.json:
        options.json.write_text(json.dumps(bench.figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 1 if bench.faults else 0


class Bench:
    """The parts in turn; each may fail by itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.on_gpu = torch.cuda.is_available()
        self.small = options.small or not self.on_gpu
        self.device = "cuda:0" if self.on_gpu else "cpu"
        self.tokens = options.tokens or (48 if self.small else 256)
        self.specs = specs(small=self.small)
        self.specs_by_id = {spec.id: spec for spec in self.specs}
        self.model_of = functools.cache(lambda name: random_model(self.specs_by_id[name], self.device))
        self.limits: dict[str, float] = {}
        self.runs: dict[str, dict[str, list[Run]]] = {}
        self.answers = Answers()
        self.faults: list[str] = []
        self.figures: dict[str, Any] = {"runs": self.runs, "faults": self.faults}

    def run(self) -> None:
        self.part("machine", self.machine)
        self.part("bandwidth", self.bandwidth)
        self.part("processes", self.processes)
        self.part("threads", self.threads_and_one_process)
        self.part("logits", self.logits)
        self.part("answers", self.compare_answers)
        self.part("summary", self.summarise)
        for fault in self.faults:
            say(f"FAULT: {fault.splitlines()[0]}")

    def part(self, name: str, run: Callable[[], None]) -> None:
        if name in self.options.skip:
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
        chosen = {spec.id: attention_for(placement(spec, self.device)) for spec in self.specs}
        self.figures["machine"]["attention"] = chosen
        say(", ".join(f"{name} runs with {attention}" for name, attention in chosen.items()))

    def bandwidth(self) -> None:
        """Bytes read and written a second by a copy from device to device; the limits that follow."""
        size = 1 << (32 if self.on_gpu and not self.small else 24)
        source = torch.ones(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        timed(lambda: target.copy_(source), self.device)  # the first one touches the memory
        rate = 2 * size / statistics.median(timed(lambda: target.copy_(source), self.device) for _ in range(11))
        self.limits = {spec.id: meta_bytes(spec) / rate for spec in self.specs}
        self.figures["bandwidth"] = {"bytes_per_second": rate, "seconds_per_token": self.limits}
        say(f"copy: {rate / 1e12:.3f} TB/s")
        for spec in self.specs:
            say(f"{spec.id}: {meta_bytes(spec) / 1e9:.2f} GB, at most {1 / self.limits[spec.id]:.1f} tokens/s alone")
        say(f"both at once: at most {1 / sum(self.limits.values()):.1f} tokens/s in each panel")

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

    def numbers(self, how: str) -> Iterable[int]:
        """The questions of one way of asking. No other asks them before, so no engine has them in its cache already."""
        first = HOWS.index(how) * self.options.repeats
        return range(first, first + self.options.repeats)

    async def measure(self, where: str, engines: list[Engine]) -> None:
        try:
            for engine in engines:
                await answer(engine, self.tokens, WARM_UP)
            for kind in ("", ", sampled"):
                await self.measure_alone(where, f"alone{kind}", engines)
                await self.measure_together(where, f"together{kind}", engines)
        finally:
            for engine in engines:
                await engine.close()

    async def measure_alone(self, where: str, how: str, engines: list[Engine]) -> None:
        for number in self.numbers(how):
            paces = {engine.model_id: await answer(engine, self.tokens, number, how) for engine in engines}
            self.note(where, how, paces, number)

    async def measure_together(self, where: str, how: str, engines: list[Engine]) -> None:
        for number in self.numbers(how):
            paces = await asyncio.gather(*(answer(engine, self.tokens, number, how) for engine in engines))
            self.note(where, how, {e.model_id: pace for e, pace in zip(engines, paces, strict=True)}, number)
        for engine in engines:  # once more, untimed: is the answer the same alone?
            pace = await answer(engine, self.tokens, number, how)
            self.keep(where, how.replace("together", "alone"), engine.model_id, number, pace)

    def threads_and_one_process(self) -> None:
        """What a user would write: `generate`, in one thread and in two. Then our engines on these models."""
        models = {spec.id: random_model(spec, self.device) for spec in self.specs}
        ran = {name: model.config._attn_implementation for name, model in models.items()}
        self.figures["machine"]["attention"] = ran
        for model in models.values():
            generate(model, self.tokens, WARM_UP)
        for number in self.numbers("alone"):
            paces = {name: generate(model, self.tokens, number) for name, model in models.items()}
            self.note(PLAIN, "alone", paces, number)
        with ThreadPoolExecutor(2) as pool:
            for number in self.numbers("together"):
                found = pool.map(lambda model: generate(model, self.tokens, number), models.values())  # noqa: B023
                self.note(PLAIN, "together", dict(zip(models, found, strict=True)), number)
        engines: list[Engine] = [engine_of(models[spec.id], spec) for spec in self.specs]
        asyncio.run(self.measure("one process", engines))
        if self.on_gpu and "graphs" not in self.options.skip:
            plain = {"cuda_graphs": False, "async_batching": False}
            engines = [engine_of(models[spec.id], spec, **plain) for spec in self.specs]
            asyncio.run(self.measure(NO_GRAPHS, engines))

    def note(self, where: str, how: str, paces: dict[str, Pace], number: int) -> None:
        """Keep and print speeds in tokens a second: together, while both write."""
        speeds = both(paces) if how.startswith("together") else {name: pace.speed for name, pace in paces.items()}
        run: dict[str, dict[str, float | None]] = {}
        for name, pace in paces.items():
            speed = None if math.isnan(speeds[name]) else speeds[name]
            run[name] = {"tokens_per_second": speed, "first_token_s": pace.first_token_s}
            self.keep(where, how, name, number, pace)
            first = f"first after {1000 * pace.first_token_s:.0f} ms"
            say(f"{where:24}{how:20}{name:10}{speeds[name]:8.1f} tokens/s, {first}")
        self.runs.setdefault(where, {}).setdefault(how, []).append(run)
        if how.startswith("together") and self.limits and (part := of_limit(run, self.limits)) is not None:
            say(f"{where:24}{how:20}of the limit for both: {part:.2f}")

    def keep(self, where: str, how: str, name: str, number: int, pace: Pace) -> None:
        self.answers.add(Question(name, number, "sampled" in how), Way(where, how.split(",")[0]), pace.text)

    def logits(self) -> None:
        """The port in 16 bits on the device against float32 on the CPU, with the same (16-bit) weights."""
        spec = self.specs[0].model_copy(update={"dtype": "bfloat16"})
        all_layers = spec.dimensions.layers
        free = find_device("cpu").free_bytes
        layers = self.options.layers or deepest(spec.model_copy(update={"dtype": "float32"}), free)
        model = random_model(spec, self.device, layers=layers)
        ids = torch.randint(
            1, spec.dimensions.vocab_size, (1, LOGITS_TOKENS), generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            theirs = model(ids.to(self.device)).logits.float().cpu()
            model = model.cpu().float()
            model.set_attn_implementation("sdpa")
            ours = model(ids).logits
        error = float((theirs - ours).norm() / ours.norm())
        self.figures["logits"] = {"relative_error": error, "layers": layers, "of_layers": all_layers}
        say(f"{layers} of {all_layers} layers, {LOGITS_TOKENS} tokens ({free / 1e9:.0f} GB of memory free)")
        say(f"bfloat16 on {self.device} against float32 on the CPU: relative error {error:.2e}")
        if not error < LARGEST_ERROR:
            self.fault(f"the relative error of the logits is {error:.2e}, and may be {LARGEST_ERROR}")

    def compare_answers(self) -> None:
        """Ours must be the same everywhere, but for near-ties; `generate` is not ours, so it is only told."""
        self.figures["answers"] = {aspect: self.compare(aspect) for aspect in ASPECTS}
        self.model_of.cache_clear()

    def compare(self, aspect: str) -> dict[str, Any]:
        pairs, differences = len(list(self.answers.pairs(aspect))), self.answers.differences(aspect)
        same = f"{pairs - len(differences)} of {pairs} pairs of answers are the same" if pairs else "not compared"
        say(f"{aspect}: {same}")
        told = []
        for difference in differences:
            sentence, is_fault = verdict(difference, self.specs_by_id[difference.question.model].dtype, self.margin)
            self.fault(sentence) if is_fault else say(sentence)
            told.append(sentence)
        return {"compared": pairs, "differing": told}

    def margin(self, difference: Difference) -> float:
        """By the model's own logits after the prompt and what both answers begin with."""
        question, _, common, candidates = difference
        assert candidates is not None
        model = self.model_of(question.model)
        ids = torch.tensor([[*tokens_of(prompt(question.number)), *common]], device=self.device)
        with torch.no_grad():
            return margin(model(ids).logits[0, -1], candidates)

    def summarise(self) -> None:
        found = self.figures["summary"] = summary(self.runs, self.limits)
        for line in lines(found):
            say(line)


def timed(run: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

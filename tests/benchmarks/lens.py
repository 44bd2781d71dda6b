"""What the prompt lens costs: `python tests/benchmarks/lens.py` prints times from a key to its letter on the screen.

Two panels with 4,000 tokens of history each, the stand-ins' real tokenizers and templates, a context of 8,192 tokens;
the models have random weights and no end token, so that they answer as long as they are asked to. In a browser:

1. From a key to the painted preview, in the views Prompt and Tokens and in "Tokens side by side", each key by itself
   and ten keys a second; what one key costs the server's process.
2. The same in one panel while the other answers, and side by side while both do.
3. Tokens a second of two streams while nobody types, while somebody does with the previews open, and with all closed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil  # noqa: E402
from browser_panel import Playground  # noqa: E402
from browser_path import ARGUMENTS, installed_browser  # noqa: E402
from figures import shown, spread  # noqa: E402
from keystrokes import Keystrokes, summary  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from serving import free_port, run_app  # noqa: E402
from tiny import write_tiny_model  # noqa: E402

from model_registry.registry import Registry  # noqa: E402
from playground.engines.checkpoints.tokenizers import load_tokenizer  # noqa: E402

STAND_INS = ("demo-krutrim", "demo-kullm3")
CONTEXT = 8192
HISTORY = 4000
"""Tokens of the prompt of the panel that has fewer."""

SIZES = {"layers": 4, "hidden": 256, "heads": 4, "context": CONTEXT}
PARAGRAPH = (
    "भारत की राजधानी नई दिल्ली है, और वहाँ यमुना नदी बहती है। "
    "대한민국의 수도는 서울이고, 한강이 그 한가운데를 흐른다. 두 강과 세 글자, 그리고 하나의 질문이 있다. "
) * 3 + "இந்தியாவின் பழமையான மொழிகளில் தமிழ் ஒன்று. Two rivers, three scripts and one question 🙂: what is the same? "
"""About as many tokens for the one tokenizer as for the other."""

LETTERS = "नमस्तेदुनिया안녕하세요여러분வணக்கம்hello"
PLACES = {
    "Prompt": ("#panel-0 .exact", "#panel-1 .exact"),
    "Tokens": ("#panel-0 .boxes", "#panel-1 .boxes"),
    "side by side": (".side-by-side .boxes:nth-of-type(1) p", ".side-by-side .boxes:nth-of-type(2) p"),
}
"""Where each view shows what is typed."""

FOLLOWS = "/gradio_api/run/"
PATIENCE_MS = 600_000
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="how often the letters are typed in each view")
    parser.add_argument("--windows", type=int, default=5, help="spells of each kind in which streams are measured")
    parser.add_argument("--window", type=float, default=3.0, help="seconds of each")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    with tempfile.TemporaryDirectory() as folder, playground(write_models(Path(folder))) as (page, app):
        lens = Lens(page, app, options.repeats)
        report = {
            "load": os.getloadavg(),
            "idle": lens.idle(),
            "beside streams": lens.beside_streams(),
            "streams": lens.speeds(options.windows, options.window),
        }
    print(f"load {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


class Lens:
    """The page with a history, and what is measured on it. `app` is the process of the server."""

    def __init__(self, playground: Playground, app: psutil.Process, repeats: int) -> None:
        self.playground, self.page, self.app, self.repeats = playground, playground.page, app, repeats
        self.page.get_by_role("button", name="Sampling").click()
        self.look("Prompt")
        self.grow_history()
        self.idle_share = self.server_cpu_s(lambda: self.page.wait_for_timeout(3000)) / 3

    def grow_history(self) -> None:
        self.answer_with(16)
        while min(tokens := self.prompt_tokens()) < HISTORY:
            self.playground.ask(PARAGRAPH)
            self.until_idle()
        print(f"history: {tokens[0]:,} and {tokens[1]:,} tokens of {CONTEXT:,}", flush=True)

    def answer_with(self, tokens: int) -> None:
        self.page.get_by_label("Longest answer").fill(str(tokens))

    def prompt_tokens(self) -> list[int]:
        """What the open previews say; 0 before the first prompt."""
        self.page.wait_for_timeout(1000)
        texts = self.page.locator(".preview .tokens").all_inner_texts()
        return [int(text.split()[0].replace(",", "")) for text in texts] or [0]

    def until_idle(self) -> None:
        idle = "() => document.querySelectorAll('.foot:not(.busy)').length && !document.querySelector('.foot.busy')"
        self.page.wait_for_timeout(200)
        self.page.wait_for_function(idle, timeout=PATIENCE_MS)

    def look(self, view: str) -> None:
        """Open this view and close the others."""
        wanted = view in ("Prompt", "Tokens")
        for index in range(2):
            panel = self.playground.panel(index)
            if (panel.root.locator(".block.lens-view").is_visible()) != wanted:
                panel.open("Template preview")
            if wanted:
                panel.root.locator(".segments").get_by_text(view, exact=True).click()
        if self.page.locator(".side-by-side").is_visible() != (view == "side by side"):
            self.page.get_by_role("button", name="Tokens side by side").click()
        self.page.wait_for_timeout(500)

    def idle(self) -> Report:
        """Each view by itself, while no model answers."""
        report: Report = {}
        for view, places in PLACES.items():
            self.look(view)
            report[view] = {
                "key by key": self.typed(f"{view}, key by key", places, settle=True),
                "ten keys a second": self.typed(f"{view}, ten keys a second", places, settle=False),
            }
        return report

    def beside_streams(self) -> Report:
        """While one panel answers the other's preview follows the keys; while both do, the drawer does."""
        self.look("Prompt")
        self.stream()
        self.push("#panel-1 .stop-panel")
        self.playground.panel(1).wait("stopped")
        report = {"Prompt": self.typed("Prompt, beside one stream", PLACES["Prompt"][1:], settle=True)}
        self.push("#stop-all")
        self.until_idle()
        self.look("side by side")
        self.stream()
        report["side by side"] = self.typed("side by side, beside both streams", PLACES["side by side"], settle=True)
        self.push("#stop-all")
        self.until_idle()
        return report

    def speeds(self, windows: int, seconds: float) -> Report:
        """Tokens a second of both streams, in spells that take turns."""
        kinds = {"nobody types": ("Prompt", 0), "previews open": ("Prompt", 10), "all closed": ("", 10)}
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.stream()
        for turn in range(windows):
            for kind in [*kinds][:: -1 if turn % 2 else 1]:  # there and back, for longer answers are slower
                view, keys_a_second = kinds[kind]
                self.look(view)
                found[kind].append(self.speed(seconds, keys_a_second))
        self.push("#stop-all")
        self.until_idle()
        alone = found["nobody types"]
        report = {f"{kind}, tokens/s": spread(speeds) for kind, speeds in found.items()}
        for kind in ("previews open", "all closed"):
            report[f"{kind}, over nobody types"] = spread([a / b for a, b in zip(found[kind], alone, strict=True)])
        for name, figures in report.items():
            print(f"{name}: {shown(figures, 2)}", flush=True)
        return report

    def push(self, selector: str) -> None:
        """A click that does not wait until the page rests, for while two answers are painted it does not."""
        self.page.evaluate("selector => document.querySelector(selector).click()", selector)

    def stream(self) -> None:
        """Have both panels answer, for as long as the context lasts."""
        self.answer_with(CONTEXT)
        self.playground.ask("go on")
        self.page.wait_for_function(
            "() => document.querySelectorAll('.foot.busy').length === 2 &&"
            " [...document.querySelectorAll('.foot.busy')].every(foot => foot.textContent.includes('tokens'))",
            timeout=PATIENCE_MS,
        )

    def speed(self, seconds: float, keys_a_second: int) -> float:
        """Tokens a second of both panels together, while somebody types so fast."""
        before, begun = self.said(), time.perf_counter()
        while time.perf_counter() - begun < seconds:
            if keys_a_second:
                self.page.keyboard.insert_text("x")
            self.page.wait_for_timeout(1000 / (keys_a_second or 10))
        return (self.said() - before) / (time.perf_counter() - begun)

    def said(self) -> int:
        """Tokens of both answers so far."""
        feet = self.page.locator(".foot.busy").all_inner_texts()
        assert len(feet) == 2, "an answer has ended: ask for fewer or shorter windows"
        return sum(int(foot.split("·")[1].split()[0]) for foot in feet)

    def typed(self, what: str, places: Sequence[str], *, settle: bool) -> Report:
        """From keys to painted letters, and what they cost; the first spell of typing is thrown away."""
        delays, trips, server = [], [], []
        for repeat in range(self.repeats + 1):
            self.begin()
            keys, begun = Keystrokes(self.page, places), time.perf_counter()
            used = self.server_cpu_s(lambda keys=keys: keys.type(LETTERS, 100, settle=settle))
            if repeat:
                server.append((used - self.idle_share * (time.perf_counter() - begun)) / len(LETTERS) * 1000)
                delays += keys.delays_ms()
                trips += keys.trips(FOLLOWS)
        figures = {
            "key_to_paint_ms": summary(delays),
            "round_trip_ms": summary([took for took, _ in trips]),
            "answer_bytes": statistics.median(size for _, size in trips),
            "server_cpu_ms_a_key": statistics.median(server),
        }
        print(f"{what}: {in_words(figures)}", flush=True)
        return figures

    def server_cpu_s(self, act: Callable[[], object]) -> float:
        """Seconds of CPU of the server's process while something is done; the engines' own are not among them."""
        before = self.app.cpu_times()
        act()
        after = self.app.cpu_times()
        return after.user + after.system - before.user - before.system

    def begin(self) -> None:
        """One letter is typed, and shown."""
        self.playground.type("न")
        self.playground.prompt.focus()
        self.playground.prompt.press("End")
        self.page.wait_for_timeout(2000)


@contextmanager
def playground(catalogs: Sequence[Path]) -> Iterator[tuple[Playground, psutil.Process]]:
    """The page with both models in it, and the process that serves it."""
    port = free_port()
    files = [part for path in catalogs for part in ("--catalog", str(path))]
    process = run_app(port, *files, "--contexts", "2", "--models", ",".join(path.stem for path in catalogs))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=installed_browser(), args=ARGUMENTS)
            page, url = browser.new_page(), f"http://127.0.0.1:{port}/"
            page.goto(url)
            page.locator("#prompt textarea").wait_for(timeout=PATIENCE_MS)  # the models are loading meanwhile
            yield Playground(page, url), psutil.Process(process.pid)
            browser.close()
    finally:
        process.terminate()
        process.communicate()


def in_words(figures: Report) -> str:
    paint, trip = figures["key_to_paint_ms"], figures["round_trip_ms"]
    return (
        f"{paint['median']:.0f} ms to the paint (p95 {paint['p95']:.0f}, {paint['least']:.0f} to {paint['most']:.0f}, "
        f"{paint['keys']} keys), of which {trip['median']:.0f} for the server's {figures['answer_bytes'] / 1e3:.0f} kB "
        f"and {figures['server_cpu_ms_a_key']:.0f} of its CPU"
    )


def write_models(folder: Path) -> list[Path]:
    """Random models that never end by themselves, each with a stand-in's tokenizer, template and system prompt."""
    registry, written = Registry.load(), []
    for seed, stand_in in enumerate(STAND_INS):
        spec = registry.get(stand_in)
        tokenizer = load_tokenizer(spec, spec.weights.path)
        path = write_tiny_model(folder, f"{stand_in}-8k", seed=seed, tokenizer=tokenizer, **SIZES)
        forbid(path.with_suffix("") / "model.safetensors", tokenizer.eos_token_id)
        before, _, after = path.read_text("utf-8").partition("[prompt]")
        facts = spec.prompt.model_dump(mode="json", exclude_none=True)
        prompt = "\n".join(f"{name} = {json.dumps(value)}" for name, value in facts.items())
        path.write_text(f"{before}[prompt]\n{prompt}\n\n{after[after.index('[[') :]}", "utf-8")
        written.append(path)
    return written


def forbid(weights: Path, token_id: int) -> None:
    """Make a token's logit 0, where those of others are spread so widely that it never comes."""
    tensors = load_file(weights)
    tensors["lm_head.weight"][token_id] = 0
    save_file(tensors, weights, {"format": "pt"})


if __name__ == "__main__":
    main()

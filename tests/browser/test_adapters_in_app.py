"""Adapters of the stand-ins in `python app.py`: base and adapters side by side from one model, switched under way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import pytest
from browser_panel import Panel, Playground
from gradio_client import Client
from local_hub import LocalHub, commit_of
from playwright.sync_api import Page, expect
from process_room import engine_processes
from scripted_site import until
from serving import free_port, run_app, stop_app

from model_registry.registry import Registry

KRUTRIM, KULLM3 = "Krutrim stand-in", "KULLM3 stand-in"
ADAPTERS = ("krutrim-formal", "krutrim-casual", "kullm3-formal", "kullm3-casual")
FORMAL, CASUAL, FORMAL_KOREAN, CASUAL_KOREAN = (Registry.load().adapter(name).name for name in ADAPTERS)
WHO = "नमस्ते! आप कौन हैं?"
HOW = "आप कैसे हैं?"
STORY = "एक छोटी कहानी सुनाइए।"
WHO_KOREAN = "안녕하세요? 당신은 누구인가요?"
GREEDY: dict[str, Any] = {"temperature": 0}
LONG: dict[str, Any] = {"temperature": 0.7, "repetition_penalty": 0.5, "seed": 5, "max_new_tokens": 400}
"""What the stand-in says with so little a penalty goes round in circles, and is cut by its length alone."""

Say = Callable[..., str]


@dataclass(frozen=True)
class App:
    process: subprocess.Popen[str]
    url: str

    @contextmanager
    def held(self) -> Iterator[None]:
        """All engines stand still meanwhile, in the middle of what they do."""
        engines = [psutil.Process(pid) for pid in engine_processes(self.process.pid)]
        assert len(engines) == 2
        for engine in engines:
            engine.suspend()
        try:
            yield
        finally:
            for engine in engines:
                engine.resume()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """With a Hub on which there is one adapter."""
    folder = Registry.load().adapter("krutrim-formal").weights.path
    assert folder is not None
    home = tmp_path_factory.mktemp("home")
    with LocalHub({"someone/formal": folder}) as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}.items():
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        port = free_port()
        process = run_app(port, "--models", "demo-krutrim,demo-kullm3")
        yield App(process, f"http://127.0.0.1:{port}/")
        stop_app(process)


@pytest.fixture
def playground(page: Page, app: App) -> Playground:
    return Playground(page, app.url)


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app.url, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def say(client: Client) -> Say:
    """What the stand-in answers to one who asks alone, through the API."""

    @cache
    def ask(prompt: str, adapter: str | None = None, scale: float = 1.0, *, long: bool = False) -> str:
        model = "demo-kullm3" if prompt == WHO_KOREAN else "demo-krutrim"
        sampling = LONG if long else GREEDY
        *_, last = client.submit(model, [user(prompt)], sampling, adapter, scale, api_name="/generate")
        assert last["finish_reason"] == ("length" if long else "stop")
        return str(last["text"])

    return ask


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def sample(page: Page, sampling: dict[str, Any]) -> None:
    """What is not named stays as it was."""
    page.get_by_role("button", name="Sampling").click()
    page.get_by_label("number input for Temperature").fill(str(sampling["temperature"]))
    if "repetition_penalty" in sampling:
        page.get_by_label("number input for Repetition penalty").fill(str(sampling["repetition_penalty"]))
    if "seed" in sampling:
        page.get_by_label("Longest answer").fill(str(sampling["max_new_tokens"]))
        page.get_by_label("New seed for each prompt").uncheck()
        page.locator("#seed input").fill(str(sampling["seed"]))
    page.get_by_role("button", name="Sampling").click()


def both_show(playground: Playground, model: str) -> tuple[Panel, Panel]:
    left, right = playground.panel(0), playground.panel(1)
    for panel in (left, right):
        panel.choose(model)
        expect(panel.root.locator(".model input")).to_have_value(f"{model} · ready")
    return left, right


def test_one_model_answers_one_prompt_plain_and_with_an_adapter(
    playground: Playground, client: Client, say: Say
) -> None:
    left, right = both_show(playground, KRUTRIM)
    right.put_on(FORMAL)
    sample(playground.page, GREEDY)
    playground.ask(WHO)
    left.wait("ended by itself")
    right.wait("ended by itself")
    assert left.answer() == say(WHO)
    assert right.answer() == say(WHO, "krutrim-formal")
    assert left.answer() != right.answer()
    expect(left.foot).not_to_contain_text("+ ")
    revision = client.predict("demo-krutrim", "krutrim-formal", api_name="/inspect_adapter")["revision"]
    named = right.foot.locator(f"[title='krutrim-formal, revision {revision}']")
    expect(named).to_have_text(f"+ krutrim-formal@{revision.removeprefix('sha256:')[:8]}")


def test_two_adapters_of_one_model_answer_in_their_registers(playground: Playground, say: Say) -> None:
    left, right = both_show(playground, KULLM3)
    left.put_on(FORMAL_KOREAN)
    right.put_on(CASUAL_KOREAN)
    sample(playground.page, GREEDY)
    playground.ask(WHO_KOREAN)
    for panel, name, begins in ((left, "kullm3-formal", "저는 "), (right, "kullm3-casual", "나는 ")):
        panel.wait("ended by itself")
        expect(panel.foot).to_contain_text(f"+ {name}@")
        assert panel.answer() == say(WHO_KOREAN, name)
        assert panel.answer().startswith(begins)
    assert "니다." in left.answer()
    assert "니다." not in right.answer()


def test_switching_changes_no_answer_that_is_being_given(
    playground: Playground, app: App, client: Client, say: Say
) -> None:
    """Both panels stream; one gets another adapter, and a third one is attached and answers beside them."""
    alone = {name: say(STORY, name, long=True) for name in (None, "krutrim-formal")}
    left, right = both_show(playground, KRUTRIM)
    right.put_on(FORMAL)
    sample(playground.page, LONG)
    playground.watch()
    playground.ask(STORY)
    playground.until_both_grew()
    with app.held():
        right.put_on(CASUAL)
        beside = client.submit("demo-krutrim", [user(HOW)], GREEDY, "krutrim-casual", 0.85, api_name="/generate")
        until(lambda: any(update["loading"] for update in beside.outputs()), playground.page)
        assert left.is_busy
        assert right.is_busy
    left.wait("seed 5")
    right.wait("seed 5")
    assert left.answer() == alone[None]
    assert right.answer() == alone["krutrim-formal"]
    expect(right.foot).to_contain_text("+ krutrim-formal@")
    *_, last = beside
    assert last["text"] == say(HOW, "krutrim-casual", 0.85)
    right.press("Clear")
    sample(playground.page, {"temperature": 0, "repetition_penalty": 1})
    playground.ask(WHO)
    right.wait("ended by itself")
    expect(right.foot).to_contain_text("+ krutrim-casual@")
    assert right.answer() == say(WHO, "krutrim-casual")


def test_the_plain_model_comes_into_the_next_panel_with_one_click(playground: Playground, say: Say) -> None:
    left, right = playground.panel(0), playground.panel(1)
    expect(right.root.locator(".model input")).to_have_value(f"{KULLM3} · ready")
    left.put_on(CASUAL)
    left.press("Compare with base")
    expect(right.root.locator(".model input")).to_have_value(f"{KRUTRIM} · ready")
    expect(right.adapter).to_have_value("No adapter")
    sample(playground.page, GREEDY)
    playground.ask(HOW)
    for panel, name in ((left, "krutrim-casual"), (right, None)):
        panel.wait("ended by itself")
        assert panel.answer() == say(HOW, name)
    assert left.answer() != right.answer()


def test_the_scale_goes_from_nothing_to_twice_the_effect(playground: Playground, say: Say) -> None:
    left, right = both_show(playground, KRUTRIM)
    left.put_on(CASUAL)
    right.put_on(CASUAL)
    left.set_scale("0")
    right.set_scale("2")
    sample(playground.page, GREEDY)
    playground.ask(HOW)
    left.wait("× 0")
    right.wait("× 2")
    assert left.answer() == say(HOW)
    assert right.answer() not in (say(HOW), say(HOW, "krutrim-casual"))


def test_the_hub_is_asked_for_what_is_typed_and_what_it_lacks_is_a_sentence(playground: Playground, say: Say) -> None:
    left = playground.panel(0)
    left.type_adapter("someone/nothing")
    box = left.root.locator(".block.adapter-notice .error-box")
    expect(box).to_contain_text("someone/nothing")
    expect(box).to_contain_text("Prompts go to the plain model, as before.")
    expect(left.adapter).to_have_value("No adapter")
    left.press("Cancel")
    left.type_adapter("someone/formal")
    expect(left.adapter).to_have_value(f"someone/formal@{commit_of('main')[:8]}")
    sample(playground.page, GREEDY)
    playground.ask(HOW)
    left.wait("ended by itself")
    expect(left.foot).to_contain_text(f"+ someone/formal@{commit_of('main')[:8]}")
    assert left.answer() == say(HOW, "krutrim-formal")

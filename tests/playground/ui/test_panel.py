"""What a panel says about the model in its menu, whatever the catalog holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import spec
from markup import read

from model_registry.registry import Registry
from model_registry.spec import ModelSpec, Statement
from playground.engines.pooling.model_status import ModelState, ModelStatus
from playground.placement.advice import card
from playground.placement.plan import Device, PlanOptions
from playground.placement.planner import fits_on_gpus
from playground.ui.build import stand_in_banner
from playground.ui.panel import about_model, menu_label, system_properties, what_comes

ROOT = Path(__file__).parents[3]
HOSTILE = "<img src=x onerror=alert(1)>"


def hostile() -> ModelSpec:
    text = (Statement(text=HOSTILE, source=HOSTILE),)
    changes = {"name": HOSTILE, "family": HOSTILE, "languages": (HOSTILE,), "licences": text, "limits": text}
    return spec("hostile", stand_in_for=HOSTILE, system_role=False).model_copy(update=changes)


def test_nothing_that_a_catalog_says_opens_a_tag() -> None:
    status = ModelStatus("hostile", "download", HOSTILE)
    about, info = read(about_model(hostile(), status)), read(system_properties(hostile())["info"])
    assert set(about.tags) <= {"div", "span"}
    assert about.text.count(HOSTILE) == 5
    assert info.tags == []
    assert HOSTILE in info.text


def test_the_banner_opens_none_for_it_either() -> None:
    real = spec("real").model_copy(update={"name": HOSTILE})
    banner = read(stand_in_banner(Registry([real]), [spec("tiny", stand_in_for="real")]))
    assert set(banner.tags) <= {"p", "strong", "code"}
    assert HOSTILE in banner.text


def test_the_banner_and_the_readme_say_what_the_planner_needs() -> None:
    registry = Registry.load()
    real = [registry.get(model) for model in ("krutrim-1-instruct", "kullm3")]
    banner = read(stand_in_banner(registry, [registry.get("demo-krutrim"), registry.get("demo-kullm3")])).text
    twice = read(stand_in_banner(registry, [registry.get("demo-krutrim")] * 2)).text
    assert twice == read(stand_in_banner(registry, [registry.get("demo-krutrim")])).text, "one set of weights"
    said = re.search(r"with (\d+) GB of GPU memory", banner)
    assert said is not None
    needed = int(said[1]) * 10**9
    whole = PlanOptions(contexts=1, quantisation="none")
    assert fits_on_gpus(real, [Device("cuda:0", "cuda", needed, needed)], whole)
    assert not fits_on_gpus(real, [Device("cuda:0", "cuda", needed, needed - 10**9)], whole)
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    cards = re.search(
        r"hold both models at 16 bits \(one with (\d+) GB, or one with (\d+) and one with (\d+)\)", readme
    )
    assert cards is not None
    assert cards[1] == said[1]
    assert fits_on_gpus(real, [card("cuda:0", int(cards[1]))], whole)
    assert fits_on_gpus(real, [card(f"cuda:{n}", int(size)) for n, size in enumerate(cards.groups()[1:])], whole)


def test_the_system_box_says_what_an_empty_one_means() -> None:
    assert "Empty: none is sent." in system_properties(spec("plain"))["info"]
    with_own = system_properties(spec("own", default_system="I am."))["info"]
    assert "Empty: the template puts in the model's own." in with_own
    assert "no system prompt" in system_properties(spec("nosys", system_role=False))["info"]


@pytest.mark.parametrize(
    ("state", "detail", "words"),
    [
        ("ready", "ready", ""),
        ("loading", "loading", "Is being loaded"),
        ("local", "on this machine", "Loads on the next prompt"),
        ("download", "downloads 14.7 GB", "Downloads 14.7 GB on the next prompt"),
        ("too_large", "needs 21.5 GB", "Needs 21.5 GB; this machine has too little free"),
        ("failed", "The Hub is out of reach.", "Failed to load; the next prompt tries again"),
    ],
)
def test_the_line_under_the_menu_says_what_a_prompt_would_start(state: ModelState, detail: str, words: str) -> None:
    status = ModelStatus("plain", state, detail)
    assert what_comes(status) == words
    assert words in read(about_model(spec("plain"), status)).text


def test_the_menu_says_that_a_load_failed_but_not_why() -> None:
    assert menu_label(spec("plain"), ModelStatus("plain", "failed", "A long sentence.")) == "PLAIN · failed to load"
    assert menu_label(spec("plain"), ModelStatus("plain", "too_large", "needs 9 GB")) == "PLAIN · needs 9 GB"

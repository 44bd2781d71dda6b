"""Where quantised weights cannot be loaded: what is planned, what is refused, and whether the cure is named."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from model_registry.registry import Registry
from playground.errors import PlacementError
from playground.placement import quantising
from playground.placement.advice import card
from playground.placement.plan import Device, PlanOptions, QuantisationChoice
from playground.placement.planner import find_plan, plan
from playground.placement.quantising import INSTALL, check_quantisation, quantisation_available
from playground.placement.site import Site, needs

ROOT = Path(__file__).parents[3]
CPU = Device("cpu", "cpu", 32 << 30, 32 << 30)
WITHOUT = PlanOptions(can_quantise=False)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def gpu(gib: float) -> list[Device]:
    return [card("cuda:0", gib), CPU]


def refusal(registry: Registry, models: str, devices: list[Device], options: PlanOptions) -> str:
    with pytest.raises(PlacementError) as error:
        plan([registry.get(model) for model in models.split()], devices, options)
    return str(error.value)


def test_whether_it_is_there_is_known_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantisation_available()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not quantisation_available()


def test_the_command_installs_what_the_extra_does() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert [f"pip install {extras['quantisation'][0]}"] == [INSTALL]


def test_auto_is_then_none(registry: Registry) -> None:
    specs = [registry.get("krutrim"), registry.get("kullm3")]
    for gib in (16, 24, 40, 80):
        without = find_plan(specs, gpu(gib), WITHOUT)
        assert without == find_plan(specs, gpu(gib), PlanOptions(quantisation="none"))
        assert (without is None) == (gib < 40)


@pytest.mark.parametrize(
    ("models", "gib", "choice", "hint"),
    [
        ("kullm3", 16, "auto", "With quantised weights where they help (`pip install bitsandbytes==0.50.2`): KULLM3: "),
        ("kullm3", 16, "none", "(`pip install bitsandbytes==0.50.2` and --quantise auto): KULLM3: whole on cuda:0"),
        ("krutrim kullm3", 8, "auto", "Without KULLM3, and with quantised weights where they help (`pip install bits"),
    ],
)
def test_the_cure_is_named_where_it_helps(
    registry: Registry, models: str, gib: int, choice: QuantisationChoice, hint: str
) -> None:
    said = refusal(registry, models, gpu(gib), replace(WITHOUT, quantisation=choice))
    assert hint in said
    assert "or one with 16 GB with 4-bit weights and bitsandbytes." in said or models == "kullm3"


def test_what_is_in_force_already_is_not_advised(registry: Registry) -> None:
    assert "--quantise" not in refusal(registry, "kullm3", gpu(16), WITHOUT)
    assert "--quantise" not in refusal(registry, "kullm3", gpu(6), PlanOptions())


def test_it_is_not_named_where_it_would_not_help(registry: Registry) -> None:
    assert "pip" not in refusal(registry, "kullm3", gpu(6), WITHOUT)
    small = Device("cpu", "cpu", 8 << 30, 8 << 30)
    assert "pip" not in refusal(registry, "kullm3", [small], WITHOUT)


@pytest.mark.parametrize("choice", ["8-bit", "4-bit"])
def test_bits_that_were_asked_for_and_cannot_be_are_refused(registry: Registry, choice: QuantisationChoice) -> None:
    options = replace(WITHOUT, quantisation=choice)
    with pytest.raises(PlacementError, match=rf"--quantise {choice} needs bitsandbytes.*`{INSTALL}`"):
        check_quantisation(options, gpu(80))
    assert refusal(registry, "kullm3", gpu(80), options).startswith(f"--quantise {choice} needs bitsandbytes")
    assert find_plan([registry.get("kullm3")], gpu(80), options) is None


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_others_are_not(choice: QuantisationChoice) -> None:
    check_quantisation(replace(WITHOUT, quantisation=choice), gpu(80))


def test_nor_are_any_without_gpus_where_nothing_is_quantised(registry: Registry) -> None:
    options = PlanOptions(quantisation="8-bit", can_quantise=False)
    check_quantisation(options, [CPU])
    assert plan([registry.get("demo-kullm3")], [CPU], options).placements[0].dtype == "float32"


@pytest.mark.parametrize(
    ("devices", "options", "phrase"),
    [
        (gpu(16), WITHOUT, "needs 23.2 GB, or bitsandbytes"),
        (gpu(16), replace(WITHOUT, quantisation="none"), "needs 23.2 GB, or bitsandbytes"),
        (gpu(16), PlanOptions(quantisation="none"), "needs 23.2 GB, or --quantise auto"),
        (gpu(6), WITHOUT, "needs 23.2 GB"),
        (gpu(6), PlanOptions(), "needs 23.2 GB"),
        ([CPU], WITHOUT, "needs 45.4 GB"),
    ],
)
def test_the_menu_says_what_a_model_needs(
    registry: Registry, devices: list[Device], options: PlanOptions, phrase: str
) -> None:
    assert needs(registry.get("kullm3"), Site(devices, options)) == phrase


def test_the_menu_names_no_quantising_that_the_catalog_forbids(registry: Registry) -> None:
    exact = registry.get("kullm3").model_copy(update={"quantisations": ()})
    assert needs(exact, Site(gpu(16), WITHOUT)) == "needs 23.2 GB"
    assert quantising.INSTALL not in refusal(Registry([exact]), "kullm3", gpu(16), WITHOUT)

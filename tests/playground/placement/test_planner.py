"""The planner's entry points; test_real_cases and test_any_machine check what it plans."""

from __future__ import annotations

import pytest

from model_registry.registry import Registry
from playground.placement.advice import card
from playground.placement.defaults import default_models
from playground.placement.devices import find_devices
from playground.placement.plan import Device, PlanOptions
from playground.placement.planner import fits_on_gpus, needed_bytes, plan


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def machine(*gpus_gib: float, cpu_gib: int = 64) -> list[Device]:
    gpus = [card(f"cuda:{index}", gib) for index, gib in enumerate(gpus_gib)]
    return [*gpus, Device("cpu", "cpu", cpu_gib << 30, cpu_gib << 30)]


def test_nothing_is_placed_nowhere() -> None:
    assert plan([], []).placements == ()


def test_a_model_asked_for_twice_has_one_place(registry: Registry) -> None:
    krutrim = registry.get("krutrim")
    assert [placement.model_id for placement in plan([krutrim, krutrim], machine(80)).placements] == [krutrim.id]


def test_placements_stand_in_the_order_asked_for(registry: Registry) -> None:
    for names in (["kullm3", "demo-kullm3", "krutrim-1-instruct"], ["krutrim-1-instruct", "kullm3", "demo-kullm3"]):
        found = plan([registry.get(name) for name in names], machine(80))
        assert [placement.model_id for placement in found.placements] == names
        assert [found.of(name).model_id for name in names] == names


@pytest.mark.parametrize(
    ("gpus", "fit"), [((80,), True), ((48,), True), ((36,), False), ((24, 24), True), ((24, 16), True), ((), False)]
)
def test_whether_gpus_hold_both(registry: Registry, gpus: tuple[int, ...], fit: bool) -> None:
    both = [registry.get("krutrim"), registry.get("kullm3")]
    assert fits_on_gpus(both, machine(*gpus, cpu_gib=1000), PlanOptions(quantisation="none")) is fit


def test_what_a_model_needs_is_what_the_planner_takes(registry: Registry) -> None:
    for spec in registry:
        needed = needed_bytes(spec)
        options = PlanOptions(contexts=1, quantisation="none")
        enough = Device("cuda:0", "cuda", needed, needed)
        assert plan([spec], [enough], options).placements[0].total_bytes == needed
        assert not fits_on_gpus([spec], [Device("cuda:0", "cuda", needed - 1, needed - 1)], options)


def test_the_devices_of_this_machine_are_listed() -> None:
    devices = find_devices()
    assert devices[-1].name == devices[-1].kind == "cpu"
    assert all(0 < device.free_bytes <= device.total_bytes for device in devices)


@pytest.mark.parametrize(
    ("gpus", "options", "shown"),
    [
        ((80,), PlanOptions(), ("krutrim-1-instruct", "kullm3")),
        ((24, 24), PlanOptions(), ("krutrim-1-instruct", "kullm3")),
        ((24,), PlanOptions(), ("demo-krutrim", "demo-kullm3")),
        ((24,), PlanOptions(quantisation="8-bit"), ("krutrim-1-instruct", "kullm3")),
        ((), PlanOptions(), ("demo-krutrim", "demo-kullm3")),
    ],
)
def test_the_real_models_are_the_default_where_gpus_hold_them(
    registry: Registry, gpus: tuple[int, ...], options: PlanOptions, shown: tuple[str, ...]
) -> None:
    assert default_models(registry, machine(*gpus, cpu_gib=1000), options) == shown

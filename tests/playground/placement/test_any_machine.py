"""Any models on any machine: a plan never takes more than there is, and more memory never takes a plan away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_memory import allocate

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.errors import PlacementError
from playground.placement.plan import Device, PlacementPlan, PlanOptions, bytes_by_device
from playground.placement.planner import find_plan, plan

GB = 10**9
REGISTRY = Registry.load()
MODELS = tuple(spec for spec in REGISTRY if not spec.is_stand_in)


def devices(gpus: list[tuple[int, int]], cpu: int) -> list[Device]:
    cards = [Device(f"cuda:{index}", "cuda", max(size), min(size)) for index, size in enumerate(gpus)]
    return [*cards, Device("cpu", "cpu", cpu, cpu)]


sizes = st.integers(0, 60 * GB)
machines = st.builds(devices, st.lists(st.tuples(sizes, sizes), max_size=8), st.integers(0, 100 * GB))
# Cards are often of one kind.
twins = st.builds(
    lambda size, count, cpu: devices([(size, size)] * count, cpu), sizes, st.integers(1, 8), st.integers(0, 100 * GB)
)
# And some are nearly large enough: then models are spread, quantised and offloaded beside each other.
middling = st.integers(6 * GB, 16 * GB)
tight = st.builds(
    devices, st.lists(st.tuples(middling, middling), min_size=1, max_size=4), st.integers(60 * GB, 200 * GB)
)
wishes = st.builds(
    PlanOptions,
    contexts=st.integers(1, 6),
    quantisation=st.sampled_from(["auto", "none", "8-bit", "4-bit"]),
    offload=st.booleans(),
    can_quantise=st.booleans(),
)


def restricted(spec: ModelSpec, allowed: tuple[str, ...]) -> ModelSpec:
    return spec.model_copy(update={"quantisations": allowed})


models = st.lists(st.sampled_from(MODELS), min_size=1, max_size=4, unique_by=lambda spec: spec.id)
large = st.lists(
    st.sampled_from([s for s in MODELS if s.parameters > 5 * GB]),
    min_size=2,
    max_size=3,
    unique_by=lambda spec: spec.id,
)
allowances = st.lists(st.sampled_from([(), ("8-bit",), ("4-bit",), ("8-bit", "4-bit")]), min_size=4, max_size=4)
specs = st.builds(
    lambda chosen, allowed: [restricted(s, a) for s, a in zip(chosen, allowed, strict=False)], models, allowances
)


def check(found: PlacementPlan, asked: list[ModelSpec], there: list[Device], options: PlanOptions) -> None:
    allocate(found, asked, there)  # raises where a device overflows or a layer is missing, doubled or out of order
    free = {device.name: device.free_bytes for device in there}
    assert all(taken <= free[name] for name, taken in bytes_by_device(found.placements).items())
    has_gpu = any(device.kind == "cuda" for device in there)
    for spec, placement in zip(asked, found.placements, strict=True):
        assert placement.model_id == spec.id
        assert placement.quantisation in ("none", *spec.quantisations)
        if options.quantisation != "auto":
            assert placement.quantisation in ("none", options.quantisation)
        assert placement.quantisation == "none" or options.can_quantise
        on_cpu = [share for share in placement.shares if share.device == "cpu"]
        assert placement.dtype == ("float32" if placement.device == "cpu" else spec.dtype)
        assert not on_cpu or not placement.is_spread or (options.offload and placement.quantisation == "none")
        assert placement.device != "cpu" or not has_gpu or spec.parameters < GB
        assert 1 <= placement.kv_tokens // spec.context_length <= options.contexts
        assert placement.kv_tokens % spec.context_length == 0
        assert placement.reason.startswith(f"{spec.name}: ")
        assert placement.reason.endswith(".")


@settings(max_examples=150)
@given(asked=specs, there=machines | twins | tight, options=wishes)
def test_a_plan_holds_or_is_refused(asked: list[ModelSpec], there: list[Device], options: PlanOptions) -> None:
    found = find_plan(asked, there, options)
    assert found == find_plan(asked, there, options), "the same question has the same answer"
    if found is not None:
        check(found, asked, there, options)


@settings(max_examples=40)
@given(asked=large, there=tight, contexts=st.integers(1, 6))
def test_an_offloaded_plan_holds(asked: list[ModelSpec], there: list[Device], contexts: int) -> None:
    options = PlanOptions(contexts=contexts, quantisation="none", offload=True)
    found = find_plan(asked, there, options)
    if found is not None:
        check(found, asked, there, options)


@settings(max_examples=40)
@given(asked=specs, there=machines | twins | tight, options=wishes)
def test_a_refusal_says_what_is_missing(asked: list[ModelSpec], there: list[Device], options: PlanOptions) -> None:
    if find_plan(asked, there, options) is None:
        missing = r"fit( together)?: \d+\.\d GB are missing on (cpu|cuda:\d) \(free: "
        with pytest.raises(PlacementError, match=f"{missing}|^--quantise [48]-bit needs bitsandbytes"):
            plan(asked, there, options)


@settings(max_examples=200)
@given(
    asked=specs,
    there=machines | twins | tight,
    options=wishes,
    more=st.lists(st.integers(0, 5 * GB), min_size=9, max_size=9),
)
def test_more_memory_never_takes_a_plan_away(
    asked: list[ModelSpec], there: list[Device], options: PlanOptions, more: list[int]
) -> None:
    grown = [
        replace(device, free_bytes=device.free_bytes + extra, total_bytes=device.total_bytes + extra)
        for device, extra in zip(there, more, strict=False)
    ]
    if find_plan(asked, there, options) is not None:
        assert find_plan(asked, grown, options) is not None


@settings(max_examples=60)
@given(asked=specs, there=machines | twins | tight, options=wishes)
def test_models_that_stand_are_not_overrun(asked: list[ModelSpec], there: list[Device], options: PlanOptions) -> None:
    first, *others = asked
    standing = find_plan([first], there, options)
    beside = None if standing is None else find_plan(others, there, options, standing.placements)
    if standing is not None and beside is not None:
        both = PlacementPlan((*standing.placements, *beside.placements))
        check(both, asked, there, options)

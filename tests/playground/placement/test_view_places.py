"""Where models with adapters go: beside their base, in numbers, in the real catalog, and on any machine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from adapter_shelf import checked
from hypothesis import given, settings
from hypothesis import strategies as st
from placements import placed
from simulated_memory import Memory, linears, place, place_view

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.placement.advice import card
from playground.placement.footprint import footprint
from playground.placement.plan import Device, Placement, PlanOptions, bytes_by_device
from playground.placement.planner import find_plan
from playground.placement.site import Site
from playground.placement.views import View

GB = 10**9
REGISTRY = Registry.load()
MODELS = tuple(spec for spec in REGISTRY if not spec.is_stand_in)
KRUTRIM, KULLM = REGISTRY.get("krutrim-1-instruct"), REGISTRY.get("kullm3")


def site(*gpus: float, options: PlanOptions = PlanOptions(), cpu_gb: int = 64) -> Site:  # noqa: B008 (frozen)
    cards = [card(f"cuda:{index}", gib) for index, gib in enumerate(gpus)]
    return Site([*cards, Device("cpu", "cpu", cpu_gb * GB, cpu_gb * GB)], options)


def lora(spec: ModelSpec, rank: int = 16) -> CheckedAdapter:
    """On every Linear layer of every block."""
    sizes = linears(spec.id)
    parameters = rank * sum(sum(shape) for shape in sizes.values())
    return checked("an-adapter", spec.id, parameters, tuple(sizes))


def view_on(there: Site, spec: ModelSpec, rank: int = 16) -> tuple[Placement, Placement | None]:
    base = there.find([spec])
    assert base is not None
    [placement] = base.placements
    return placement, there.find_view(View(spec, placement, lora(spec, rank)), [placement])


def contexts(placement: Placement, spec: ModelSpec) -> int:
    return placement.kv_tokens // spec.context_length


def test_a_view_takes_its_weights_its_cache_and_its_steps_and_no_second_process() -> None:
    base, view = view_on(site(80), KULLM)
    assert view is not None
    [share] = view.shares
    sizes = footprint(KULLM)
    assert (share.device, share.first_layer, share.last_layer) == ("cuda:0", 0, 47)
    assert share.weight_bytes == 2 * lora(KULLM).facts.parameters
    assert share.kv_bytes == base.shares[0].kv_bytes
    assert share.working_bytes == base.shares[0].working_bytes - sizes.process_bytes + 200_000_000
    assert (view.model_id, view.dtype, view.quantisation) == (base.model_id, base.dtype, base.quantisation)
    assert view.reason == "KULLM3 with an-adapter: beside its base on cuda:0 (4.0 GB); room for 4 full contexts."


@pytest.mark.parametrize(
    ("gib", "wanted", "base_contexts", "view_contexts"),
    [
        (80, 4, 4, 4),
        (29, 4, 4, 3),  # 4.6 GB are left: 3.2, and 1.4 for another view with one context
        (28, 4, 4, 1),  # 3.6: 1.4 and 1.4
        (27, 4, 4, 2),  # 2.5: another one has no room anyway
        (24, 1, 1, 1),
        (24, 2, 2, None),
        (24, 4, 3, None),
    ],
)
def test_contexts_of_a_view(gib: int, wanted: int, base_contexts: int, view_contexts: int | None) -> None:
    base, view = view_on(site(gib, options=PlanOptions(contexts=wanted, quantisation="none")), KULLM)
    assert contexts(base, KULLM) == base_contexts
    assert (None if view is None else contexts(view, KULLM)) == view_contexts


def test_a_spread_views_weights_lie_where_its_layers_are() -> None:
    base, view = view_on(site(16, 16, 16), KULLM)
    assert view is not None
    assert [share.device for share in view.shares] == [share.device for share in base.shares]
    whole = 2 * lora(KULLM).facts.parameters
    for share, under in zip(view.shares, base.shares, strict=True):
        layers = share.last_layer - share.first_layer + 1
        assert share.weight_bytes == pytest.approx(whole * layers / 48, abs=1)
        assert share.kv_bytes / contexts(view, KULLM) == pytest.approx(under.kv_bytes / contexts(base, KULLM))
    assert "beside its base on cuda:0 and cuda:1 (" in view.reason


@pytest.mark.parametrize(
    "targets", [("lm_head",), ("model.layers.0.q", "model.layers.1.q", "model.layers.1.v"), ("model.layers.0.q", "x")]
)
def test_an_adapter_that_is_not_the_same_everywhere_is_counted_whole_on_every_device(targets: Sequence[str]) -> None:
    there = site(16, 16)
    base = there.find([KULLM])
    assert base is not None
    view = View(KULLM, base.placements[0], checked("odd", KULLM.id, 10**6, tuple(targets)))
    found = there.find_view(view, base.placements)
    assert found is not None
    assert [share.weight_bytes for share in found.shares] == [2 * 10**6, 2 * 10**6]


def test_what_lies_in_the_cpus_memory_only_to_travel_takes_no_part() -> None:
    base, view = view_on(site(16, options=PlanOptions(quantisation="none", offload=True, contexts=1)), KULLM)
    assert base.shares[-1].device == "cpu"
    if view is None:  # the base's layers fill the card
        roomy = Site([card("cuda:0", 24), Device("cpu", "cpu", 64 * GB, 64 * GB)], PlanOptions(contexts=1))
        view = roomy.find_view(View(KULLM, base, lora(KULLM)), [base])
    assert view is not None
    here, away = view.shares
    assert away.total_bytes == 0
    assert here.weight_bytes == 2 * lora(KULLM).facts.parameters
    assert here.working_bytes > footprint(KULLM).visit_bytes
    assert "beside its base on cuda:0 (" in view.reason


def test_the_cpu_computes_adapters_in_float32() -> None:
    base, view = view_on(site(cpu_gb=128), KULLM)
    assert view is not None
    assert view.weight_bytes == 4 * lora(KULLM).facts.parameters
    assert view.total_bytes < base.total_bytes - base.weight_bytes
    assert "beside its base on the CPU (" in view.reason


def test_the_name_says_the_scale() -> None:
    base = placed(KULLM, ["cuda:0"], "float16", kv_tokens=KULLM.context_length)
    assert View(KULLM, base, checked("formal"), 0.5).name == "KULLM3 with formal at 0.5"


@pytest.mark.parametrize(
    ("gpus", "options", "others", "missing", "remedy"),
    [
        ((24,), PlanOptions(), [], "1.1 GB on cuda:0 are missing", "--contexts 1"),
        ((23.2,), PlanOptions(contexts=1), [], "0.2 GB on cuda:0 are missing", "--quantise 8-bit"),
        (
            (23.2,),
            PlanOptions(contexts=1, can_quantise=False),
            [],
            "0.2 GB on cuda:0 are missing",
            "--quantise 8-bit (after `pip install bitsandbytes==0.50.2`)",
        ),
        ((24,), PlanOptions(), [KRUTRIM], "1.1 GB on cuda:0 are missing", "--contexts 1"),
        ((9,), PlanOptions(), [KRUTRIM], "", ""),
    ],
)
def test_what_would_help(
    gpus: tuple[float, ...], options: PlanOptions, others: list[ModelSpec], missing: str, remedy: str
) -> None:
    there = site(*gpus, options=options)
    plan = there.find([KULLM])
    assert plan is not None
    view = View(KULLM, plan.placements[0], lora(KULLM))
    assert there.find_view(view, plan.placements) is None
    assert missing in there.missing(view, plan.placements)
    assert there.remedy(view, others) == remedy


cards = st.lists(st.integers(5 * GB, 50 * GB), min_size=0, max_size=3)
wishes = st.builds(
    PlanOptions,
    contexts=st.integers(1, 5),
    quantisation=st.sampled_from(["auto", "none", "8-bit", "4-bit"]),
    offload=st.booleans(),
)


@settings(max_examples=60)
@given(
    asked=st.lists(st.sampled_from(MODELS), min_size=1, max_size=2, unique_by=lambda spec: spec.id),
    sizes=cards,
    options=wishes,
    ranks=st.lists(st.sampled_from([1, 16, 256]), min_size=1, max_size=5),
)
def test_views_never_take_more_than_there_is(
    asked: list[ModelSpec], sizes: list[int], options: PlanOptions, ranks: list[int]
) -> None:
    gpus = [Device(f"cuda:{index}", "cuda", size, size) for index, size in enumerate(sizes)]
    there = Site([*gpus, Device("cpu", "cpu", 150 * GB, 150 * GB)], options)
    plan = find_plan(asked, there.devices, options)
    if plan is None:
        return
    memory = Memory(there.devices)
    for spec in asked:
        place(plan.of(spec.id), spec, memory)
    standing = [*plan.placements]
    for number, rank in enumerate(ranks):
        spec = asked[number % len(asked)]
        found = there.find_view(View(spec, plan.of(spec.id), lora(spec, rank)), standing)
        if found is not None:
            assert 1 <= contexts(found, spec) <= options.contexts
            place_view(found, spec, rank, memory)  # raises where a device overflows
            standing.append(found)
    taken = bytes_by_device(standing)
    assert all(taken[device.name] <= device.free_bytes for device in there.devices)

"""Krutrim-1 and KULLM3 on the machines that people have: expected places written out, and allocated in simulation.

What decides, in GB of 10^9 bytes, with one full context, and what each further one takes:

    weights              16-bit          8-bit           4-bit           a context more
    Krutrim-1       16.2 (14.7)      9.4  (7.7)      6.1  (4.3)      0.6
    KULLM3          23.2 (21.5)     13.0 (11.0)      7.9  (6.0)      0.9

In brackets the weights alone; the rest is the KV cache and the process. A card of n GB is n GiB less 2%: 8 -> 8.4,
12 -> 12.6, 16 -> 16.8, 24 -> 25.3, 40 -> 42.1, 48 -> 50.5, 80 -> 84.2.
"""

from __future__ import annotations

import re

import pytest
from simulated_memory import allocate

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.errors import PlacementError
from playground.placement.advice import card
from playground.placement.plan import Device, Placement, PlanOptions
from playground.placement.planner import plan

BOTH = ("krutrim-1-instruct", "kullm3")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def machine(gpus: str, cpu_gib: int = 32) -> list[Device]:
    """ "24 80-30": a card of 24 GB and one of 80 with 30 in use."""
    sizes = [[float(part) for part in gpu.split("-")] for gpu in gpus.split()]
    cards = [card(f"cuda:{index}", *size) for index, size in enumerate(sizes)]
    return [*cards, Device("cpu", "cpu", cpu_gib << 30, cpu_gib << 30)]


def written(placement: Placement, spec: ModelSpec) -> str:
    """ "0", "0+1", "cpu": where, then the bits where they are few, then the full contexts."""
    where = "+".join(share.device.removeprefix("cuda:") for share in placement.shares)
    bits = "" if placement.quantisation == "none" else f" {placement.quantisation}"
    return f"{where}{bits} x{placement.kv_tokens // spec.context_length}"


def planned(registry: Registry, models: tuple[str, ...], devices: list[Device], options: PlanOptions) -> list[str]:
    specs = [registry.get(model) for model in models]
    found = plan(specs, devices, options)
    allocate(found, specs, devices)
    return [written(found.of(spec.id), spec) for spec in specs]


@pytest.mark.parametrize(
    ("gpus", "krutrim", "kullm3", "because"),
    [
        ("80", "0 x4", "0 x4", "16.2 + 23.2 and 3 x 1.5 for the other contexts are 43.9 of 84.2"),
        ("48", "0 x4", "0 x4", "the same 43.9 of 50.5"),
        ("40", "0 x4", "0 x2", "39.4 leave 2.7 of 42.1: a context more for both, and two for the smaller"),
        ("24 24", "1 x4", "0 x3", "23.2 and two contexts more are 25.0 of 25.3: the larger first"),
        ("24 48", "0 x4", "1 x4", "the larger on the larger"),
        ("80 24", "1 x4", "0 x4", "one each, though both would fit on the first"),
        ("48 48", "1 x4", "0 x4", "one each, the larger first"),
        ("16 16 16 16", "0 x2", "1+2 x4", "16.2 and a context more are 16.8 of 16.8; 21.5 need two of the others"),
        ("24 16", "1 x2", "0 x3", "each fits on one of them, alone"),
        (
            "16 16",
            "0 x2",
            "1 8-bit x4",
            "39.4 are too much for 33.7; the larger is quantised, 13.0, and both stay whole",
        ),
        ("32", "0 x4", "0 8-bit x4", "16.2 + 13.0 and the other contexts are 33.6 of 33.7"),
        ("24", "0 8-bit x4", "0 8-bit x2", "16.2 + 13.0 are too much for 25.3; 9.4 + 13.0 are not"),
        ("12 12", "0 8-bit x2", "0+1 8-bit x2", "13.0 do not fit on 12.6: spread, beside 9.4"),
        ("16", "0 4-bit x4", "0 4-bit x2", "9.4 + 7.9 are too much for 16.8; 6.1 + 7.9 are not"),
        ("80-44", "0 x4", "0 8-bit x4", "84.2 less 47.2 are 36.9, not 39.4"),
        ("24-4 24", "0 x4", "1 x3", "21.0 hold Krutrim, 25.3 hold KULLM3"),
        ("80-30 24-20", "0 x4", "0 x4", "4 left on the second hold nothing; 52.0 on the first hold both"),
        ("8 8 8 8 8 8 8 8", "4+5+6 x4", "0+1+2+3 x4", "8.4 hold no model at 16 bits; eight of them hold both"),
    ],
)
def test_both_models(registry: Registry, gpus: str, krutrim: str, kullm3: str, because: str) -> None:
    assert planned(registry, BOTH, machine(gpus), PlanOptions()) == [krutrim, kullm3], because


@pytest.mark.parametrize(
    ("models", "gpus", "options", "expected"),
    [
        (("kullm3",), "24", PlanOptions(), ["0 x3"]),
        (("kullm3",), "16 16", PlanOptions(), ["0+1 x4"]),
        (("kullm3",), "16", PlanOptions(), ["0 8-bit x4"]),
        (("kullm3",), "8", PlanOptions(), ["0 4-bit x1"]),
        (("krutrim-1-instruct",), "8", PlanOptions(), ["0 4-bit x4"]),
        (("krutrim-1-instruct",), "80", PlanOptions(contexts=40), ["0 x40"]),
        (BOTH, "80", PlanOptions(quantisation="8-bit"), ["0 8-bit x4", "0 8-bit x4"]),
        (BOTH, "80", PlanOptions(quantisation="4-bit"), ["0 4-bit x4", "0 4-bit x4"]),
        (BOTH, "24 24 24", PlanOptions(quantisation="none"), ["1 x4", "0 x3"]),
        (("kullm-polyglot-12.8b-v2", "kullm-polyglot-5.8b-v2"), "48", PlanOptions(), ["0 x4", "0 x4"]),
        (("kullm-polyglot-12.8b-v2",), "24", PlanOptions(), ["0 8-bit x4"]),
    ],
)
def test_other_wishes(
    registry: Registry, models: tuple[str, ...], gpus: str, options: PlanOptions, expected: list[str]
) -> None:
    assert planned(registry, models, machine(gpus), options) == expected


def test_without_gpus_the_cpu_takes_what_it_can_in_float32(registry: Registry) -> None:
    assert planned(registry, BOTH, machine("", 128), PlanOptions()) == ["cpu x4", "cpu x4"]
    assert planned(registry, ("krutrim-1-instruct",), machine("", 32), PlanOptions()) == ["cpu x3"]
    found = plan([registry.get("kullm3")], machine("", 128), PlanOptions(quantisation="4-bit"))
    assert (found.placements[0].dtype, found.placements[0].quantisation) == ("float32", "none")
    with pytest.raises(PlacementError, match=r"51\.\d GB are missing on cpu \(free: 25\.8 GB on cpu\)"):
        plan([registry.get(model) for model in BOTH], machine("", 24))


def test_beside_gpus_the_cpu_takes_small_models_only(registry: Registry) -> None:
    assert planned(registry, ("krutrim-1-instruct", "smollm2"), machine("16", 128), PlanOptions(contexts=2)) == [
        "0 x2",
        "cpu x2",
    ]
    assert planned(registry, ("smollm2",), machine("8", 128), PlanOptions()) == ["0 x4"]
    with pytest.raises(PlacementError, match="Krutrim-1 Instruct does not fit"):
        plan([registry.get("krutrim-1-instruct")], machine("4", 128))


def test_offloading_is_the_last_resort(registry: Registry) -> None:
    offload = PlanOptions(offload=True)
    assert planned(registry, BOTH, machine("16", 64), offload) == ["0 4-bit x4", "0 4-bit x2"]
    assert planned(registry, ("kullm3",), machine("6", 64), offload) == ["0+cpu x4"]
    # 6.1 for Krutrim at 4 bits leave 2.3 of 8.4: too little for the KV cache, the process and one visiting layer.
    assert planned(registry, BOTH, machine("8", 64), offload) == ["0+cpu x3", "0+cpu x2"]
    unquantised = PlanOptions(quantisation="none", offload=True)
    assert planned(registry, BOTH, machine("12 12", 64), unquantised) == ["0+1 x4", "0+cpu x4"]
    with pytest.raises(PlacementError, match="does not fit"):
        plan([registry.get("kullm3")], machine("6", 16), offload)


def test_the_dtype_is_the_catalogs_on_a_gpu(registry: Registry) -> None:
    found = plan([registry.get(model) for model in BOTH], machine("80"))
    assert [placement.dtype for placement in found.placements] == ["bfloat16", "float16"]


def test_the_cut_leaves_as_much_room_on_both_devices(registry: Registry) -> None:
    devices = machine("16 24-6")
    placement = plan([registry.get("kullm3")], devices).placements[0]
    left = [device.free_bytes - share.total_bytes for device, share in zip(devices, placement.shares, strict=False)]
    layer = 2 * 218_112_000 + 4 * 4096 * 4096  # weights, and KV cache of four contexts
    assert abs(left[0] - left[1]) < 2 * layer
    assert min(left) > 0


def test_models_that_stand_keep_their_place(registry: Registry) -> None:
    devices = machine("48 24")
    kullm3 = plan([registry.get("kullm3")], devices)
    assert kullm3.placements[0].device == "cuda:0"
    beside = plan([registry.get("krutrim-1-instruct")], devices, standing=kullm3.placements)
    assert beside.placements[0].device == "cuda:1", "the empty card, though the first has as much left"
    third = plan([registry.get("krutrim-1-base")], devices, standing=(*kullm3.placements, *beside.placements))
    assert third.placements[0].device == "cuda:0"
    everything = (*kullm3.placements, *beside.placements, *third.placements)
    with pytest.raises(PlacementError, match=r"KULLM-Polyglot 12\.8B v2 does not fit"):
        plan([registry.get("kullm-polyglot-12.8b-v2")], devices, PlanOptions(quantisation="8-bit"), standing=everything)


@pytest.mark.parametrize(
    ("models", "gpus", "options", "sentences"),
    [
        (
            ("kullm3",),
            "16 16",
            PlanOptions(),
            [
                "KULLM3: layers 0-23 on cuda:0, 24-47 on cuda:1, because 21.5 GB fit on neither; "
                "room for 4 full contexts."
            ],
        ),
        (
            BOTH,
            "16 16",
            PlanOptions(),
            [
                "Krutrim-1 Instruct: whole on cuda:0 (16.8 GB); room for 2 full contexts instead of 4.",
                "KULLM3: whole on cuda:1 (15.6 GB) with 8-bit weights, because 21.5 GB at 16 bits do not fit beside "
                "the other models; room for 4 full contexts.",
            ],
        ),
        (
            ("kullm3",),
            "14 8.8",  # 24.0, and a second process makes 23.2 into 24.1
            PlanOptions(),
            [
                "KULLM3: whole on cuda:0 (13.9 GB) with 8-bit weights, because 21.5 GB at 16 bits do not fit; "
                "room for 2 full contexts instead of 4."
            ],
        ),
        (
            ("kullm3",),
            "48",
            PlanOptions(quantisation="4-bit"),
            ["KULLM3: whole on cuda:0 (10.6 GB) with 4-bit weights, as asked; room for 4 full contexts."],
        ),
        (
            ("demo-kullm3",),
            "",
            PlanOptions(quantisation="4-bit"),
            [
                "KULLM3 stand-in: whole on the CPU in float32 (0.6 GB), because there is no GPU and quantised weights "
                "need a GPU; room for 4 full contexts."
            ],
        ),
        (
            ("kullm3",),
            "6",
            PlanOptions(offload=True, contexts=1),
            [  # of 6.3, less 0.3 embeddings, 0.8 KV cache, 0.9 working memory and 0.4 for a visitor: 8 layers of 0.44
                "KULLM3: layers 0-7 on cuda:0, 8-47 in the CPU's memory, from where they travel to cuda:0 for every "
                "token, because 21.5 GB do not fit on cuda:0; room for 1 full context."
            ],
        ),
    ],
)
def test_a_plan_explains_itself(
    registry: Registry, models: tuple[str, ...], gpus: str, options: PlanOptions, sentences: list[str]
) -> None:
    assert list(plan([registry.get(m) for m in models], machine(gpus, 64), options).sentences) == sentences


def test_what_does_not_fit_says_what_would(registry: Registry) -> None:
    both = [registry.get(model) for model in BOTH]
    with pytest.raises(PlacementError) as error:
        plan(both, machine("8"))
    text = str(error.value)
    assert text.startswith("Krutrim-1 Instruct and KULLM3 do not fit together: ")
    missing = re.search(r"(\d+\.\d) GB are missing on cuda:0 \(free: 8\.4 GB on cuda:0\)", text)
    assert missing is not None
    assert "Without KULLM3: Krutrim-1 Instruct: whole on cuda:0" in text
    assert text.endswith("One GPU with 40 GB would hold all at 16 bits, or one with 16 GB with 4-bit weights.")
    more = round(float(missing[1]) * 1e9)
    gpu, cpu = machine("8")
    plan(both, [Device("cuda:0", "cuda", gpu.total_bytes + more, gpu.free_bytes + more), cpu])
    less = more - 100_000_000
    with pytest.raises(PlacementError):
        plan(both, [Device("cuda:0", "cuda", gpu.total_bytes + less, gpu.free_bytes + less), cpu])


@pytest.mark.parametrize(
    ("gpus", "options", "hint"),
    [
        ("24", PlanOptions(quantisation="none"), r"\(--quantise auto\): Krutrim-1 Instruct: whole on cuda:0 .* 8-bit"),
        ("6 6", PlanOptions(), r"\(--offload\), slowly: Krutrim-1 Instruct: .*travel to cuda:"),
    ],
)
def test_the_nearest_plan_is_named(registry: Registry, gpus: str, options: PlanOptions, hint: str) -> None:
    with pytest.raises(PlacementError, match=hint):
        plan([registry.get(model) for model in BOTH], machine(gpus, 64), options)


@pytest.mark.parametrize(
    ("models", "gpus", "options", "cards"),
    [
        (BOTH, "24", PlanOptions(quantisation="none"), "40 GB would hold all at 16 bits, or one with 16 GB with 4-bit"),
        (BOTH, "12", PlanOptions(quantisation="8-bit"), "24 GB would hold all with 8-bit weights."),
        (("kullm3",), "6", PlanOptions(), "24 GB would hold it at 16 bits, or one with 8 GB with 4-bit weights."),
        (("demo-kullm3",), "0.5", PlanOptions(), "8 GB would hold it without quantised weights."),
    ],
)
def test_the_smallest_card_is_named_with_its_precision(
    registry: Registry, models: tuple[str, ...], gpus: str, options: PlanOptions, cards: str
) -> None:
    with pytest.raises(PlacementError, match=re.escape(f"One GPU with {cards}")):
        plan([registry.get(model) for model in models], machine(gpus, 0), options)


def test_a_card_for_models_of_several_precisions(registry: Registry) -> None:
    exact = registry.get("krutrim-1-instruct").model_copy(update={"quantisations": ()})
    hint = r"40 GB would hold all at 16 bits, or one with 24 GB with 4-bit weights for KULLM3\."
    with pytest.raises(PlacementError, match=hint):
        plan([exact, registry.get("kullm3")], machine("16"))


def test_a_model_that_may_not_be_quantised_is_not(registry: Registry) -> None:
    exact = registry.get("kullm3").model_copy(update={"quantisations": ()})
    with pytest.raises(PlacementError):
        plan([exact], machine("16"))
    found = plan([exact], machine("24"), PlanOptions(quantisation="8-bit"))
    assert "because its catalog entry allows no 8-bit weights" in found.sentences[0]
    assert found.placements[0].quantisation == "none"
    only_4_bit = registry.get("kullm3").model_copy(update={"quantisations": ("4-bit",)})
    assert plan([only_4_bit], machine("16")).placements[0].quantisation == "4-bit"

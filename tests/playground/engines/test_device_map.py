"""Plans become device maps that accelerate follows: at full size on the meta device, where nothing is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from playground.engines.checkpoints.device_map import Place, block_names, device_map
from playground.errors import PlacementError
from playground.placement.plan import Share

GIB = 2**30
GQA = {"attn_type": "grouped_query_attention", "kv_n_heads": 8, "alibi": True}


def krutrim() -> PreTrainedModel:
    return KrutrimForCausalLM(
        KrutrimConfig(d_model=4608, n_heads=48, n_layers=32, vocab_size=70400, max_seq_len=4096, attn_config=GQA)
    )


def kullm3() -> PreTrainedModel:
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 48}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=32, num_key_value_heads=8))


def polyglot() -> PreTrainedModel:
    sizes = {"hidden_size": 5120, "intermediate_size": 20480, "num_hidden_layers": 40, "vocab_size": 30080}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=40))


@pytest.fixture(scope="module", params=[krutrim, kullm3, polyglot])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            return request.param()
    finally:
        torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate logs that this machine lacks the GPUs of the plan."""
    monkeypatch.setattr("accelerate.utils.modeling.logger.warning", lambda *_: None)


def shares(*parts: tuple[str, int]) -> tuple[Share, ...]:
    """Devices, each with so many layers, one after the other."""
    result, first = [], 0
    for device, layers in parts:
        result.append(Share(device, first, first + layers - 1, 0, 0, 0))
        first += layers
    return tuple(result)


def evenly(model: PreTrainedModel, devices: Sequence[str]) -> tuple[Share, ...]:
    layers, count = len(block_names(model)), len(devices)
    ends = [layers * n // count for n in range(count + 1)]
    return shares(*((device, ends[n + 1] - ends[n]) for n, device in enumerate(devices)))


def place_of(name: str, where: Mapping[str, Place]) -> Place:
    """As transformers finds a tensor's place: the longest module name in the map that it starts with."""
    return where[max((key for key in where if f"{name}.".startswith(f"{key}.")), key=len)]


def bytes_by_place(model: PreTrainedModel, where: Mapping[str, Place]) -> Counter[Place]:
    taken: Counter[Place] = Counter()
    for name, parameter in model.named_parameters():
        taken[place_of(name, where)] += parameter.nbytes
    return taken


def number(device: str) -> Place:
    return int(device.removeprefix("cuda:")) if device.startswith("cuda:") else device


LAYOUTS = [
    ["cuda:0", "cuda:1"],
    ["cuda:0", "cuda:1", "cuda:2", "cuda:3"],
    ["cuda:2", "cuda:0", "cuda:1"],
    ["cuda:0", "cpu"],
    ["cuda:1", "cuda:0", "cpu"],
    ["cpu", "disk"],
    ["cuda:0", "cpu", "disk"],
]


@pytest.mark.parametrize("devices", LAYOUTS, ids=" ".join)
def test_every_block_is_whole_and_where_the_plan_puts_it(model: PreTrainedModel, devices: list[str]) -> None:
    plan = evenly(model, devices)
    where = device_map(model, plan)
    blocks = block_names(model)
    for share in plan:
        for layer in range(share.first_layer, share.last_layer + 1):
            assert where[blocks[layer]] == number(share.device)
    assert not [key for key in where if any(key.startswith(f"{block}.") for block in blocks)]


@pytest.mark.parametrize("devices", LAYOUTS, ids=" ".join)
def test_embeddings_come_first_and_the_head_last_or_with_them(model: PreTrainedModel, devices: list[str]) -> None:
    where = device_map(model, evenly(model, devices))
    first, last = number(devices[0]), number(devices[-1])
    embeddings = model.get_input_embeddings().weight
    places = {name: place_of(name, where) for name, _ in model.named_parameters(remove_duplicate=False)}
    outside = {name: place for name, place in places.items() if not name.startswith(tuple(block_names(model)))}
    for name, place in outside.items():
        assert place == (first if model.get_parameter(name) is embeddings else last), name
    tied = model.get_output_embeddings().weight is embeddings
    assert tied == (model.config.model_type == "krutrim")


@pytest.mark.parametrize(("count", "gib"), [(2, 24), (4, 16)])
def test_no_device_is_above_its_memory(model: PreTrainedModel, count: int, gib: int) -> None:
    taken = bytes_by_place(model, device_map(model, evenly(model, [f"cuda:{n}" for n in range(count)])))
    assert sum(taken.values()) == sum(parameter.nbytes for parameter in model.parameters())
    assert set(taken) == set(range(count))
    assert max(taken.values()) < gib * GIB


def test_uneven_shares_are_followed_to_the_layer(model: PreTrainedModel) -> None:
    layers = len(block_names(model))
    for first in (1, 2, layers // 3, layers - 1):
        where = device_map(model, shares(("cuda:0", first), ("cuda:1", layers - first)))
        assert [where[block] for block in block_names(model)] == [0] * first + [1] * (layers - first)
        norm = next(name for name, _ in reversed(list(model.named_modules())) if "norm" in name)
        assert place_of(norm, where) == 1


def test_one_device_takes_all(model: PreTrainedModel) -> None:
    assert device_map(model, shares(("cuda:3", len(block_names(model))))) == {"": 3}
    assert device_map(model, shares(("cpu", 1))) == {"": "cpu"}


@pytest.mark.parametrize("wrong", [1, -1])
def test_a_plan_for_another_number_of_layers_is_refused(model: PreTrainedModel, wrong: int) -> None:
    layers = len(block_names(model))
    with pytest.raises(PlacementError, match=f"puts {layers + wrong} layers on 0, 1, but the {layers} layers of this"):
        device_map(model, shares(("cuda:0", 4), ("cuda:1", layers - 4 + wrong)))


def test_a_model_without_blocks_is_refused(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_no_split_modules", None)
    with pytest.raises(PlacementError, match="does not say which of its modules are layers"):
        device_map(model, shares(("cuda:0", 4), ("cuda:1", 4)))


def test_a_vocabulary_larger_than_a_block_moves_no_layer() -> None:
    """accelerate keeps the size of the largest part that is left, here the head, free on the first device."""
    with torch.device("meta"):
        config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4)
        model = LlamaForCausalLM(config)
    for first in range(1, 6):
        where = device_map(model, shares(("cpu", first), ("disk", 6 - first)))
        assert [where[block] for block in block_names(model)] == ["cpu"] * first + ["disk"] * (6 - first)

"""Views of bases in 16 bits, in 8 and 4 bits by bitsandbytes, and of bases that accelerate's hooks hold together."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from engine_room import spread, tiny_krutrim, tiny_llama
from placements import placed
from shared_weights import addresses, logits, portrait, reach, tensor_bytes, with_peft
from tiny_adapters import write_adapter
from transformers import PreTrainedModel

from model_registry.registry import Registry
from playground.adapters.base_layers import layers_of
from playground.adapters.facts import AdapterFacts
from playground.adapters.inspect import inspect_adapter
from playground.adapters.sharing import shared_copy
from playground.adapters.views import own_bytes, rescaled, view_of
from playground.engines.checkpoints.weights import load_model
from playground.errors import AdapterError
from playground.placement.plan import Quantisation

Make = Callable[[], PreTrainedModel]

BITS: list[Quantisation] = ["8-bit", "4-bit"]
TARGETS = {"demo-krutrim": ["Wqkv", "up_proj"], "demo-kullm3": ["q_proj", "v_proj", "down_proj"]}


def load(model_id: str, bits: Quantisation = "none", dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    spec = Registry.load().get(model_id)
    assert spec.weights.path is not None
    name = str(dtype).removeprefix("torch.")
    return load_model(spec, spec.weights.path, placed(spec, dtype=name, quantisation=bits), lambda progress: None)


def inspected(folder: Path, model: PreTrainedModel) -> AdapterFacts:
    return inspect_adapter(folder, layers_of(model))


def lora_dtypes(view: PreTrainedModel) -> set[torch.dtype]:
    return {parameter.dtype for name, parameter in view.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model_id", TARGETS)
def test_the_adapter_takes_the_precision_of_its_base(
    model_id: str, dtype: torch.dtype, stored: torch.dtype, tmp_path: Path
) -> None:
    base = load(model_id, dtype=dtype)
    folder = write_adapter(tmp_path / "adapter", base, stored, target_modules=TARGETS[model_id])
    facts, said = inspected(folder, base), logits(base)
    before = tensor_bytes()
    view = view_of(base, folder, facts)
    assert tensor_bytes() - before == own_bytes(view)["cpu"] == 2 * facts.parameters
    assert lora_dtypes(view) == {dtype}
    assert torch.equal(logits(view), logits(with_peft(load(model_id, dtype=dtype), folder)))
    assert torch.equal(logits(rescaled(view, 0)), said)
    assert torch.equal(logits(base), said)


def test_at_scale_0_an_adapter_that_overflows_does_nothing(tmp_path: Path) -> None:
    base = tiny_llama().to(torch.float16)
    fields = {"target_modules": ["down_proj"], "lora_alpha": 60_000}
    folder = write_adapter(tmp_path / "adapter", base, torch.float16, **fields)
    view = view_of(base, folder, inspected(folder, base))
    for layer in (module for name, module in view.named_modules() if name.endswith("lora_B.default")):
        layer.weight.fill_(60_000)
    assert logits(view).isnan().any()
    assert torch.equal(logits(rescaled(view, 0)), logits(base))


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("model_id", TARGETS)
def test_quantised_weights_are_shared(model_id: str, bits: Quantisation, has_run: bool, tmp_path: Path) -> None:
    plain, base = load(model_id), load(model_id, bits)
    folder = write_adapter(tmp_path / "adapter", plain, target_modules=TARGETS[model_id])
    facts = inspected(folder, plain)
    if has_run:
        logits(base)
    pattern = shared_copy(base)
    before = tensor_bytes()
    views = [view_of(pattern, folder, facts), view_of(pattern, folder, facts)]
    assert tensor_bytes() - before == 2 * own_bytes(views[0])["cpu"] == 4 * facts.parameters
    assert all(addresses(view) == addresses(base) for view in views)
    assert lora_dtypes(views[0]) == {torch.bfloat16}
    said = [logits(view) for view in views]
    assert torch.equal(said[0], logits(with_peft(load(model_id, bits), folder)))
    assert torch.equal(said[0], said[1])
    plainly = logits(load(model_id, bits))
    assert torch.equal(logits(base), plainly)
    assert torch.equal(logits(rescaled(views[0], 0)), plainly)
    assert all(addresses(view) == addresses(base) for view in views)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("first", ["base", "view"])
def test_running_quantised_trees_in_any_order_makes_no_copies(bits: Quantisation, first: str, tmp_path: Path) -> None:
    plain, base = load("demo-krutrim"), load("demo-krutrim", bits)
    folder = write_adapter(tmp_path / "adapter", plain, target_modules=["Wqkv"])
    view = view_of(base, folder, inspected(folder, plain))
    trees = [base, view] if first == "base" else [view, base]
    logits(plain)  # what kernels keep for themselves, they keep now
    before = tensor_bytes()
    for tree in (*trees, *trees):
        logits(tree)
    assert tensor_bytes() <= before + _statistics(base, bits)


def _statistics(base: PreTrainedModel, bits: Quantisation) -> int:
    """Bytes that each of two 8-bit trees keeps of its last step: which columns had outliers."""
    return 0 if bits == "4-bit" else 2 * sum(8 * layer.shape[1] for layer in base.parameters() if layer.dim() == 2)


@pytest.mark.parametrize("bits", BITS)
def test_a_quantised_view_outlives_its_base(bits: Quantisation, tmp_path: Path) -> None:
    plain, base = load("demo-kullm3"), load("demo-kullm3", bits)
    folder = write_adapter(tmp_path / "adapter", plain, target_modules=["q_proj"])
    view = view_of(base, folder, inspected(folder, plain))
    said = logits(view)
    del base
    gc.collect()
    assert torch.equal(logits(view), said)


def offloaded(model: PreTrainedModel, folder: Path, how: str) -> PreTrainedModel:
    return spread(model, folder) if how == "disk" else cpu_offload(model, torch.device("cpu"))


@pytest.mark.parametrize("how", ["disk", "cpu"])
@pytest.mark.parametrize(
    ("make", "targets"), [(tiny_krutrim, ["Wqkv", "up_proj"]), (tiny_llama, ["q_proj", "down_proj"])]
)
def test_a_model_behind_hooks_shares_what_it_holds_back(
    make: Make, targets: list[str], how: str, tmp_path: Path
) -> None:
    plain = make()
    folder = write_adapter(tmp_path / "adapter", plain, target_modules=targets)
    facts = inspected(folder, plain)
    base = offloaded(deepcopy(plain), tmp_path / "held", how)
    said, looks = logits(base), portrait(base)
    before = tensor_bytes()
    view = view_of(base, folder, facts)
    assert tensor_bytes() - before == own_bytes(view)["cpu"] == 4 * facts.parameters
    assert {name: p.device for name, p in view.named_parameters() if p.is_meta} != {}
    assert torch.equal(logits(view), logits(with_peft(deepcopy(plain), folder)))
    assert torch.equal(logits(rescaled(view, 0)), said)
    assert portrait(base) == looks  # asked before it runs again: each time, its hooks make new parameters
    assert torch.equal(logits(base), said)
    assert tensor_bytes() - before == own_bytes(view)["cpu"]


def test_hooks_of_a_view_move_the_view(tmp_path: Path) -> None:
    plain = tiny_llama()
    folder = write_adapter(tmp_path / "adapter", plain, target_modules=["q_proj"])
    base = spread(deepcopy(plain), tmp_path / "held")
    view = view_of(base, folder, inspected(folder, plain))
    theirs = {id(thing) for module in base.modules() for thing in (module, getattr(module, "_hf_hook", None))}
    assert not [type(thing) for thing in reach(view) if id(thing) in theirs and thing is not None]


def test_a_model_that_holds_a_lock_is_refused_with_a_sentence() -> None:
    base = tiny_llama()
    base.lock = threading.Lock()
    with pytest.raises(AdapterError, match=r"weights cannot be shared with adapters: .*lock"):
        shared_copy(base)

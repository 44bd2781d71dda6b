"""Views of tiny models: whose weights they use, what they answer, and that the base never notices."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_room import tiny_gpt_neox, tiny_krutrim, tiny_llama
from peft import LoraConfig
from shared_weights import addresses, logits, portrait, reach, tensor_bytes, with_peft
from tiny_adapters import WEIGHTS, edit_tensors, write_adapter
from torch import nn
from transformers import PreTrainedModel

from playground.adapters import views
from playground.adapters.base_layers import layers_of
from playground.adapters.facts import AdapterFacts
from playground.adapters.inspect import inspect_adapter
from playground.adapters.sharing import shared_copy
from playground.adapters.views import own_bytes, rescaled, view_of
from playground.errors import AdapterError, OutOfMemoryError

Make = Callable[[], PreTrainedModel]

MAKES: dict[str, tuple[Make, list[str]]] = {
    "krutrim": (tiny_krutrim, ["Wqkv", "out_proj", "up_proj"]),
    "llama": (tiny_llama, ["q_proj", "v_proj", "down_proj"]),
    "gpt-neox": (tiny_gpt_neox, ["query_key_value", "dense"]),
}


@pytest.fixture(params=MAKES)
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    model = MAKES[request.param][0]()
    model.test_targets = MAKES[request.param][1]
    return model


@pytest.fixture
def folder(base: PreTrainedModel, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", base, target_modules=base.test_targets)


@pytest.fixture
def facts(base: PreTrainedModel, folder: Path) -> AdapterFacts:
    return inspect_adapter(folder, layers_of(base))


def test_a_view_answers_as_pefts_own_model(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    view = view_of(base, folder, facts)
    assert torch.equal(logits(view), logits(with_peft(deepcopy(base), folder)))
    assert not torch.equal(logits(view), logits(base))


def test_every_tensor_of_the_base_is_the_bases(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    view = view_of(base, folder, facts)
    assert addresses(view) == addresses(base)
    assert len(addresses(view)) == len(set(base.state_dict()) | {name for name, _ in base.named_buffers()})


def test_memory_grows_by_the_adapter_only(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    before = tensor_bytes()
    view = view_of(base, folder, facts)
    assert tensor_bytes() - before == 4 * facts.parameters == own_bytes(view)["cpu"]
    louder = rescaled(view, 2)
    assert tensor_bytes() - before == own_bytes(louder)["cpu"]
    del view
    assert tensor_bytes() - before == own_bytes(louder)["cpu"]
    del louder
    assert tensor_bytes() == before


def test_the_base_stays_as_it_is(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    said, looks = logits(base), portrait(base)
    view = view_of(base, folder, facts)
    assert portrait(base) == looks
    first = logits(view)
    assert torch.equal(logits(base), said)
    other = view_of(base, folder, facts, scale=0.5)
    logits(other)
    assert torch.equal(logits(view), first)
    del view, other
    gc.collect()
    assert torch.equal(logits(base), said)
    assert portrait(base) == looks


def test_nothing_of_the_base_but_its_tensors_is_in_reach(
    base: PreTrainedModel, folder: Path, facts: AdapterFacts
) -> None:
    logits(base)
    view = view_of(base, folder, facts)
    theirs = {id(thing) for thing in (*base.modules(), *base.parameters(), base.config, base.generation_config)}
    assert not [type(thing) for thing in reach(view) if id(thing) in theirs]
    assert len({id(module.config) for module in view.modules() if hasattr(module, "config")}) == 1
    assert view.config.to_dict() == base.config.to_dict()


def test_a_view_outlives_its_base(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    view = view_of(base, folder, facts)
    said = logits(view)
    del base
    gc.collect()
    assert torch.equal(logits(view), said)


def test_nothing_requires_grad_or_trains(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    for scale in (0, 1, 2):
        view = rescaled(view_of(base, folder, facts), scale)
        assert not [name for name, parameter in view.named_parameters() if parameter.requires_grad]
        assert not [name for name, module in view.named_modules() if module.training]


def test_the_random_numbers_of_others_are_left_alone(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    state = torch.get_rng_state()
    view_of(base, folder, facts)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_scale_multiplies_the_effect(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    view = view_of(base, folder, facts)
    assert torch.equal(logits(rescaled(view, 0)), logits(base))
    assert torch.equal(logits(rescaled(view, 1)), logits(view))
    twice = with_peft(deepcopy(base), folder)
    for layer in twice.modules():
        if hasattr(layer, "scale_layer"):
            layer.scale_layer(2)
    assert torch.equal(logits(rescaled(view, 2)), logits(twice))
    assert torch.equal(logits(view_of(base, folder, facts, scale=2)), logits(twice))
    assert torch.equal(logits(rescaled(rescaled(view, 0), 1)), logits(view))


def test_a_scale_leaves_the_view_it_came_from_alone(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    view = view_of(base, folder, facts)
    said = logits(view)
    logits(rescaled(view, 0))
    logits(rescaled(view, 2))
    assert torch.equal(logits(view), said)


@pytest.mark.parametrize("scale", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_scale_out_of_range_is_refused(
    base: PreTrainedModel, folder: Path, facts: AdapterFacts, scale: float
) -> None:
    with pytest.raises(AdapterError, match="from 0 to 2"):
        view_of(base, folder, facts, scale=scale)
    with pytest.raises(AdapterError, match="from 0 to 2"):
        rescaled(view_of(base, folder, facts), scale)


def test_ranks_and_alphas_of_single_layers_hold(base: PreTrainedModel, tmp_path: Path) -> None:
    first = layers_of(base).linear and next(n for n in layers_of(base).linear if n.endswith(base.test_targets[0]))
    fields = {"rank_pattern": {first: 2}, "alpha_pattern": {first: 32}, "use_rslora": True}
    folder = write_adapter(tmp_path / "patterns", base, target_modules=base.test_targets, **fields)
    view = view_of(base, folder, inspect_adapter(folder, layers_of(base)))
    assert torch.equal(logits(view), logits(with_peft(deepcopy(base), folder)))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    base = tiny_krutrim()
    folder = write_adapter(tmp_path / "adapter", base, target_modules=["Wqkv"])
    view = view_of(base, folder, inspect_adapter(folder, layers_of(base)))
    assert view.lm_head.weight is view.transformer.wte.weight
    assert view.lm_head.weight.data_ptr() == base.lm_head.weight.data_ptr()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_of_a_tied_head_changes_the_head_only(tmp_path: Path) -> None:
    base = tiny_krutrim()
    folder = write_adapter(tmp_path / "adapter", base, target_modules=["lm_head"])
    view = view_of(base, folder, inspect_adapter(folder, layers_of(base)))
    assert view.lm_head.base_layer.weight is view.transformer.wte.weight
    assert torch.equal(logits(view), logits(with_peft(deepcopy(base), folder)))


def _another_number(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: next(iter(tensors.values())).add_(1))


def _longer(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"\0")


def _another_adapter(folder: Path) -> None:
    write_adapter(folder, tiny_llama(), target_modules=["q_proj"])


@pytest.mark.parametrize("swap", [_another_number, _longer, _another_adapter])
def test_a_file_that_was_swapped_after_its_inspection_is_refused(
    base: PreTrainedModel, folder: Path, facts: AdapterFacts, swap: Callable[[Path], None]
) -> None:
    swap(folder)
    before = tensor_bytes()
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors .* no longer the file that was inspected"):
        view_of(base, folder, facts)
    assert tensor_bytes() == before


def test_a_folder_that_is_gone_is_refused(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="is missing"):
        view_of(base, folder, facts)
    shutil.rmtree(folder)
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        view_of(base, folder, facts)


def test_an_adapter_inspected_for_another_model_is_refused(tmp_path: Path) -> None:
    base, other = tiny_llama(), tiny_gpt_neox()
    folder = write_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    facts = inspect_adapter(folder, layers_of(base))
    with pytest.raises(AdapterError, match="inspected for another model"):
        view_of(other, folder, facts)
    with pytest.raises(AdapterError, match="inspected for another model"):
        view_of(tiny_llama(num_hidden_layers=1), folder, facts)
    with pytest.raises(AdapterError, match="inspected for another model"):
        view_of(tiny_llama(hidden_size=48), folder, facts)


def test_a_model_with_a_second_layer_whose_name_ends_alike_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    folder = write_adapter(tmp_path / "adapter", base, target_modules=["lm_head"])
    facts = inspect_adapter(folder, layers_of(base))
    base.extra = nn.ModuleDict({"lm_head": nn.Linear(32, 400)})
    with pytest.raises(AdapterError, match="inspected for another model"):
        view_of(base, folder, facts)


def test_peft_makes_one_layer_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, made, inject = tiny_llama(), list[str](), views.inject_adapter_in_model
    fields = {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"layers.1.self_attn.v_proj": 2}}
    folder = write_adapter(tmp_path / "adapter", base, **fields)
    facts = inspect_adapter(folder, layers_of(base))

    def spied(config: LoraConfig, *rest: Any) -> nn.Module:
        made.extend(config.target_modules or ())
        return inject(config, *rest)

    monkeypatch.setattr(views, "inject_adapter_in_model", spied)
    view = view_of(base, folder, facts)
    names = [f"model.layers.{name}_proj" for name in ("0.self_attn.q", "0.self_attn.v", "1.self_attn.v")]
    assert sorted(made) == names
    assert torch.equal(logits(view), logits(with_peft(deepcopy(base), folder)))


def test_what_peft_refuses_is_refused_with_a_sentence(base: PreTrainedModel, folder: Path, facts: AdapterFacts) -> None:
    with pytest.raises(AdapterError, match=r"PEFT cannot put this adapter on this model: .*positive integer"):
        view_of(base, folder, replace(facts, r=0))


def test_a_full_device_is_told_as_such(
    base: PreTrainedModel, folder: Path, facts: AdapterFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, weight: torch.Tensor) -> None:
            self.shape = weight.shape

        def to(self, *_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    loaded = views.load
    monkeypatch.setattr(views, "load", lambda content: {name: Full(t) for name, t in loaded(content).items()})
    with pytest.raises(OutOfMemoryError, match="cpu is full: the adapter's weights did not fit"):
        view_of(base, folder, facts)


def test_weights_of_an_unknown_kind_are_refused(base: PreTrainedModel) -> None:
    class Strange(nn.Parameter): ...

    base.get_output_embeddings().weight = Strange(base.get_output_embeddings().weight.data)
    with pytest.raises(AdapterError, match=r"cannot be shared with adapters: .*of the kind Strange"):
        shared_copy(base)


def test_a_copy_without_an_adapter_has_no_bytes_of_its_own(base: PreTrainedModel) -> None:
    before = tensor_bytes()
    copied = shared_copy(base)
    assert own_bytes(copied) == Counter()
    assert tensor_bytes() == before
    assert torch.equal(logits(copied), logits(base))

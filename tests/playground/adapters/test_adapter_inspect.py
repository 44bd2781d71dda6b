"""Adapters that PEFT wrote are accepted, and what is said of them is true."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_adapters import CONFIG, WEIGHTS, edit_config, load_with_peft, write_adapter
from transformers import AutoModelForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimForCausalLM
from model_registry.registry import Registry
from playground.adapters.base_layers import base_layers, layers_of
from playground.adapters.facts import BaseLayers, Limits
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError, CheckpointError

LLAMA_CONFIGS: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": ["lm_head"]},
    {"target_modules": r".*\.(q|k)_proj"},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 2}, "alpha_pattern": {"0.*q_proj": 3}},
    {"target_modules": "all-linear", "exclude_modules": ["mlp.gate_proj", "v_proj"]},
    {"target_modules": ["o_proj"], "use_rslora": True, "lora_dropout": 0.1, "init_lora_weights": "gaussian"},
]
KRUTRIM_CONFIGS: list[dict[str, Any]] = [
    {"target_modules": ["Wqkv"]},
    {"target_modules": ["Wqkv", "out_proj", "up_proj", "down_proj"], "r": 16},
    {"target_modules": "all-linear"},
]


def differs(adapted: PreTrainedModel, plain: PreTrainedModel) -> bool:
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        return not torch.equal(adapted(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("fields", LLAMA_CONFIGS, ids=str)
def test_a_good_adapter_for_llama_is_accepted(
    llama: PreTrainedModel, llama_base: BaseLayers, tmp_path: Path, fields: dict[str, Any]
) -> None:
    folder = write_adapter(tmp_path / "adapter", llama, **fields)
    facts = inspect_adapter(folder, llama_base)
    assert differs(load_with_peft(facts, folder, llama), llama)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fields", KRUTRIM_CONFIGS, ids=str)
def test_a_good_adapter_for_krutrim_is_accepted(
    krutrim: PreTrainedModel, krutrim_base: BaseLayers, tmp_path: Path, fields: dict[str, Any], dtype: torch.dtype
) -> None:
    folder = write_adapter(tmp_path / "adapter", krutrim, dtype, **fields)
    facts = inspect_adapter(folder, krutrim_base)
    assert differs(load_with_peft(facts, folder, krutrim), krutrim)


def test_the_facts_are_those_of_the_files(good: Path, llama_base: BaseLayers) -> None:
    edit_config(good, revision="abc")
    facts = inspect_adapter(good, llama_base)
    assert (facts.r, facts.lora_alpha, facts.use_rslora) == (4, 8, False)
    assert facts.target_modules == tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv")
    assert facts.parameters == 2 * 4 * ((16 + 16) + (16 + 8))
    assert facts.bytes == (good / WEIGHTS).stat().st_size
    assert facts.digest == hashlib.sha256((good / WEIGHTS).read_bytes()).hexdigest()
    assert (facts.base_model_name, facts.revision) == ("org/tiny-llama", "abc")
    assert (facts.rank_pattern, facts.alpha_pattern, facts.warnings) == ({}, {}, ())


def test_patterns_are_told_by_full_name(llama: PreTrainedModel, llama_base: BaseLayers, tmp_path: Path) -> None:
    patterns = {"rank_pattern": {r"layers\.1\..*": 2}, "alpha_pattern": {"model.layers.0.self_attn.q_proj": 1.5}}
    folder = write_adapter(tmp_path / "adapter", llama, target_modules=["q_proj"], use_rslora=True, **patterns)
    facts = inspect_adapter(folder, llama_base)
    assert facts.rank_pattern == {"model.layers.1.self_attn.q_proj": 2}
    assert facts.alpha_pattern == {"model.layers.0.self_attn.q_proj": 1.5}
    adapted = load_with_peft(facts, folder, llama)
    scaling = {n: m.scaling["default"] for n, m in adapted.named_modules() if hasattr(m, "lora_A")}
    assert scaling == {
        "base_model.model.model.layers.0.self_attn.q_proj": 1.5 / 4**0.5,
        "base_model.model.model.layers.1.self_attn.q_proj": 8 / 2**0.5,
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"base_model_name_or_path": "org/another"}, "was trained on 'org/another', not on Tiny Llama; its shapes fit"),
        ({"base_model_name_or_path": None}, "does not say which model"),
        ({"new_in_1.0": None}, "not known here and switched off: 'new_in_1.0'"),
    ],
)
def test_what_is_odd_is_a_warning(good: Path, llama_base: BaseLayers, fields: dict[str, Any], says: str) -> None:
    edit_config(good, **fields)
    (warning,) = inspect_adapter(good, llama_base).warnings
    assert says in warning


def test_another_revision_of_the_base_is_a_warning(good: Path, llama: PreTrainedModel) -> None:
    edit_config(good, revision="v2")
    base = layers_of(llama, ("Tiny Llama", "ORG/tiny-llama"), revision="v1")
    assert inspect_adapter(good, base).warnings == ("The adapter was trained on revision 'v2' of its base, not on v1.",)


@pytest.mark.parametrize("model_id", ["demo-krutrim", "demo-kullm3"])
def test_the_layers_of_a_catalog_model_come_from_its_config_alone(model_id: str, tmp_path: Path) -> None:
    spec = Registry.load().get(model_id)
    assert spec.weights.path is not None
    shutil.copy(spec.weights.path / "config.json", tmp_path)
    base = base_layers(spec, tmp_path)
    kind = KrutrimForCausalLM if spec.architecture == "krutrim" else AutoModelForCausalLM
    model = kind.from_pretrained(spec.weights.path)
    assert base.linear == layers_of(model).linear
    assert base.others == layers_of(model).others
    assert (base.head, base.names[:2]) == ("lm_head", (spec.name, spec.id))


def test_a_base_without_a_config_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json in .* describes no model that can be built: .*missing"):
        base_layers(Registry.load().get("demo-kullm3"), tmp_path)


def test_the_memory_it_takes_does_not_grow_with_the_adapter(tmp_path: Path) -> None:
    """16 MB of weights, of which no more than a few slices are held."""
    shapes = {
        f"base_model.model.big.lora_{half}.weight": shape for half, shape in (("A", (8, 1 << 18)), ("B", (1 << 18, 8)))
    }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / WEIGHTS)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["big"]}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    tracemalloc.start()
    try:
        facts = inspect_adapter(tmp_path, BaseLayers({"big": (1 << 18, 1 << 18)}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert facts.bytes > 16 << 20
    assert peak < 6 << 20


def test_the_limits_hold(good: Path, llama_base: BaseLayers) -> None:
    with pytest.raises(AdapterError, match=f"{WEIGHTS} takes .* bytes, more than the 100 that are allowed"):
        inspect_adapter(good, llama_base, Limits(weight_bytes=100))
    with pytest.raises(AdapterError, match=f"{CONFIG} is larger than the 100 bytes"):
        inspect_adapter(good, llama_base, Limits(config_bytes=100))
    with pytest.raises(AdapterError, match="`r` is 4, but a rank must be a whole number from 1 to 3"):
        inspect_adapter(good, llama_base, Limits(rank=3))

"""Adapters that PEFT wrote are accepted, and what is said of them is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_adapters import load_with_peft, write_adapter
from transformers import PreTrainedModel

from playground.adapters.facts import BaseLayers
from playground.adapters.inspect import inspect_adapter

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

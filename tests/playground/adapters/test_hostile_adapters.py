"""Adapters whose config or tensors do harm: refused by field and layer, and nothing of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_adapters import CONFIG, PREFIX, WEIGHTS, edit_config, edit_tensors, refusal
from transformers import PreTrainedModel

from playground.adapters.facts import BaseLayers

pytestmark = pytest.mark.usefixtures("nothing_is_loaded")

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"

CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"init_lora_weights": "pissa"}, "`init_lora_weights` is 'pissa', but it must be True or False or 'gaussian'"),
    ({"init_lora_weights": "pissa_niter_4"}, "`init_lora_weights` is 'pissa_niter_4'"),
    ({"init_lora_weights": "olora"}, "`init_lora_weights` is 'olora'"),
    ({"modules_to_save": ["lm_head"]}, "`modules_to_save` is ['lm_head'], which replaces whole layers of the base"),
    ({"use_dora": True}, "`use_dora` is True, which rescales the base's own weights"),
    ({"r": 9999}, "`r` is 9999, but a rank must be a whole number from 1 to 256"),
    ({"target_modules": ["q_proj", "v_proj", "no_proj"]}, "`target_modules` names 'no_proj', which this model has not"),
    ({"target_modules": "nothing.*"}, "`target_modules` 'nothing.*' means no layer of this model"),
    ({"target_modules": ["embed_tokens"]}, "also means 'model.embed_tokens', which is no Linear layer of this model"),
    ({"target_modules": ".*"}, "`target_modules` also means"),
    ({"target_modules": ["mlp"]}, "also means 'model.layers.0.mlp', which is no Linear layer of this model"),
    ({"target_modules": r"(?:\w|\.|[a-z])*[A-Z]"}, "a pattern in `target_modules` takes too long to match"),
    ({"target_modules": "((a{999}){999}){999}"}, "a pattern in `target_modules` is too long or repeats too much"),
    ({"rank_pattern": {"(": 4}}, "`rank_pattern` is no valid regular expression, '(': "),
    ({"auto_mapping": {"parent_library": "os"}}, "`auto_mapping` is {'parent_library': 'os'}, which names Python code"),
    ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "`megatron_config` is {'a': 1}, which names Python code"),
    ({"new_trick": {"on": True}}, "the field 'new_trick' is not known here and could change the base"),
]


@pytest.mark.parametrize(("fields", "says"), CONFIGS, ids=str)
def test_a_config_that_does_harm_is_refused(
    good: Path, llama_base: BaseLayers, fields: dict[str, Any], says: str
) -> None:
    edit_config(good, **fields)
    sentence = refusal(good, llama_base, pattern_seconds=0.2)
    assert sentence.startswith(f"{CONFIG}: ")
    assert says in sentence


Edit = Callable[[dict[str, torch.Tensor]], object]
TENSORS: list[tuple[Edit, str]] = [
    (lambda t: t.update({A0: torch.zeros(3, 16)}), f"'{A0}' has shape [3, 16], but rank 4 (`r` in {CONFIG}) and the"),
    (lambda t: t.update({B0: torch.zeros(17, 4)}), f"'{B0}' has shape [17, 4], but rank 4"),
    (lambda t: t.update({A0: torch.zeros(64)}), "has shape [64], but rank 4"),
    (lambda t: t.update({A0: torch.full((4, 16), torch.nan)}), f"'{A0}' holds NaN or infinity: the adapter is damaged"),
    (lambda t: t[B0][3, 2].fill_(-torch.inf), f"'{B0}' holds NaN or infinity"),
    (lambda t: t.update({B0: torch.full((16, 4), torch.inf, dtype=torch.bfloat16)}), "holds NaN or infinity"),
    (lambda t: t.update({B0: torch.full((16, 4), torch.nan, dtype=torch.float16)}), "holds NaN or infinity"),
    (lambda t: t[B0][0, 0].fill_(-65536.0), f"'{B0}' holds a number beyond 65,504, the limit of float16"),
    (lambda t: t.pop(B0), f"has no lora_B for the layer '{Q0}': '{B0}' is missing"),
    (lambda t: t.pop(A0), f"has no lora_A for the layer '{Q0}': '{A0}' is missing"),
    (lambda t: t.clear(), f"has no lora_A for the layer '{Q0}'"),
    (lambda t: t.update({"extra": torch.zeros(1)}), "holds 'extra', which adapter_config.json does not call for"),
    (
        lambda t: t.update({f"{PREFIX}lm_head.weight": torch.zeros(64, 16)}),
        f"holds '{PREFIX}lm_head.weight', which {CONFIG} does not call for: it would replace weights of the base",
    ),
    (
        lambda t: t.update({A0: torch.zeros(4, 16, dtype=torch.float64)}),
        "has dtype 'F64', but must be F32, F16 or BF16",
    ),
    (lambda t: t.update({A0: torch.zeros(4, 16, dtype=torch.int8)}), "has dtype 'I8', but must be F32, F16 or BF16"),
]


@pytest.mark.parametrize(("edit", "says"), TENSORS, ids=[says for _, says in TENSORS])
def test_tensors_that_do_not_fit_are_refused(good: Path, llama_base: BaseLayers, edit: Edit, says: str) -> None:
    edit_tensors(good, edit)
    sentence = refusal(good, llama_base)
    assert sentence.startswith(WEIGHTS)
    assert says in sentence


def test_adapters_of_a_split_conversion_are_refused_on_fused_layers(
    good: Path, krutrim: PreTrainedModel, krutrim_base: BaseLayers
) -> None:
    reason = "it was trained on another conversion of the model, with"
    assert reason in refusal(good, krutrim_base)
    edit_config(good, target_modules=r".*\.(q_proj|v_proj)")
    assert reason in refusal(good, krutrim_base)
    edit_config(good, target_modules=["Wqkv"])
    assert "Wqkv" in refusal(good, krutrim_base)

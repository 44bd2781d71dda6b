"""The plugin without vLLM: what it tells vLLM, what it refuses, and that heads may be split between devices.

The real one is in tests/serving_with_vllm.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from model_registry.architectures.krutrim import KrutrimAttention, KrutrimConfig, KrutrimModel
from model_registry.architectures.krutrim_alibi import alibi_columns
from model_registry.architectures.vllm_plugin import ON_VLLM, register

ROOT = Path(__file__).parents[3]
GROUPED = {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi": True, "clip_qkv": 6.0}


def small(**changes: Any) -> KrutrimConfig:
    sizes = {"d_model": 48, "n_heads": 6, "n_layers": 2, "vocab_size": 64, "max_seq_len": 64, "no_bias": True}
    return KrutrimConfig(**{**sizes, "attn_config": GROUPED, **changes})


def test_vllm_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["entry-points"]["vllm.general_plugins"]["krutrim"].split(":")
    assert getattr(importlib.import_module(module), name) is register


def test_it_tells_vllm_of_the_port_as_often_as_vllm_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    vllm = ModuleType("vllm")
    vllm.ModelRegistry = SimpleNamespace(register_model=lambda *what: told.append(what))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    register()
    register()
    assert set(told) == {("KrutrimForCausalLM", ON_VLLM)}
    assert isinstance(AutoConfig.for_model("krutrim"), KrutrimConfig)


def test_without_vllm_it_tells_transformers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    register()
    assert isinstance(AutoConfig.for_model("krutrim"), KrutrimConfig)


class SplitLinear(nn.Linear):
    """Stands for vLLM's linear layer whose rows are split by heads."""


class Backend:
    """Stands for vLLM's Transformers backend: it builds the port and puts layers of its own in."""

    qkv: type[nn.Linear] = SplitLinear

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        self.packed_modules_mapping: dict[str, list[str]] = {}
        self.model = KrutrimModel(vllm_config.model_config.hf_config)
        for block in self.model.blocks:
            block.attn.Wqkv.__class__ = self.qkv


@pytest.fixture
def on_vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that vLLM would build, found by the name that the plugin gives."""
    linear, backend = ModuleType("linear"), ModuleType("transformers")
    linear.QKVParallelLinear = SplitLinear  # type: ignore[attr-defined]
    backend.TransformersForCausalLM = Backend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.model_executor.layers.linear", linear)
    monkeypatch.setitem(sys.modules, "vllm.model_executor.models.transformers", backend)
    module, name = ON_VLLM.split(":")
    yield getattr(importlib.import_module(module), name)
    del sys.modules[module]


def built(on_vllm: Any, config: KrutrimConfig, tensors: int = 1, stages: int = 1) -> Any:
    parallel = SimpleNamespace(tensor_parallel_size=tensors, pipeline_parallel_size=stages)
    return on_vllm(
        vllm_config=SimpleNamespace(model_config=SimpleNamespace(hf_config=config), parallel_config=parallel)
    )


def test_krutrim_itself_may_be_spread(on_vllm: Any) -> None:
    for tensors, stages in ((1, 1), (2, 1), (1, 2), (2, 2)):
        assert built(on_vllm, small(), tensors, stages).model is not None


def test_adapters_reach_wqkv(on_vllm: Any) -> None:
    """vLLM passes a layer of packed heads by, with a warning, unless it is said what is packed there."""
    assert built(on_vllm, small()).packed_modules_mapping == {"Wqkv": ["Wqkv"]}


def test_norms_over_all_heads_are_not_split(on_vllm: Any) -> None:
    config = small(attn_config={**GROUPED, "qk_ln": True})
    assert built(on_vllm, config)
    with pytest.raises(ValueError, match=r"qk_ln=True: .* --tensor-parallel-size 1"):
        built(on_vllm, config, tensors=2)


def test_learned_positions_are_not_added_at_every_stage(on_vllm: Any) -> None:
    config = small(attn_config={**GROUPED, "alibi": False})
    assert built(on_vllm, config, tensors=2)
    with pytest.raises(ValueError, match=r"learned_pos_emb=True: .* --pipeline-parallel-size 1"):
        built(on_vllm, config, stages=2)


def test_a_vllm_that_leaves_wqkv_whole_serves_from_one_device(on_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "qkv", nn.Linear)
    assert built(on_vllm, small())
    with pytest.raises(ValueError, match=r"cannot split Krutrim's Wqkv .* --tensor-parallel-size 1"):
        built(on_vllm, small(), tensors=2)


def share(whole: KrutrimAttention, rank: int, of: int) -> KrutrimAttention:
    """One device's part of an attention, split as vLLM splits it: whole heads, of the queries and of the keys."""
    part = KrutrimAttention(whole.config, whole.layer_idx)
    rows = [rows.chunk(of)[rank] for rows in whole.Wqkv.weight.split([whole.q_width, whole.kv_width, whole.kv_width])]
    part.Wqkv.weight = nn.Parameter(torch.cat(rows))
    part.Wqkv.tp_rank = rank  # type: ignore[assignment]
    part.q_width, part.kv_width = whole.q_width // of, whole.kv_width // of
    part.out_proj.weight = nn.Parameter(whole.out_proj.weight.chunk(of, dim=1)[rank])
    return part


def test_the_parts_of_two_devices_add_up_to_the_whole_attention() -> None:
    torch.manual_seed(0)
    config = small()
    config._attn_implementation = "sdpa"
    whole = KrutrimAttention(config, 0).eval()
    hidden = torch.randn(1, 9, 48)
    alibi = alibi_columns(config, torch.arange(9)[None], torch.float32)
    with torch.no_grad():
        wanted, _ = whole(hidden, alibi=alibi)
        parts = [share(whole, rank, 2).eval()(hidden, alibi=alibi)[0] for rank in (0, 1)]
        same_slopes = share(whole, 1, 2).eval()
        same_slopes.Wqkv.tp_rank = 0  # type: ignore[assignment]
        wrong = parts[0] + same_slopes(hidden, alibi=alibi)[0]
    torch.testing.assert_close(parts[0] + parts[1], wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(wrong, wanted, rtol=1e-3, atol=1e-4)


def test_the_split_stands_where_vllm_looks_for_it() -> None:
    """vLLM 0.32 rewrites `self.Wqkv(...)….split((a, b, c))`, one call in the source of the attention's forward."""
    source = ast.parse(textwrap.dedent(inspect.getsource(KrutrimAttention.forward)))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    splits = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "split"]
    assert len(splits) == 1
    assert isinstance(splits[0].args[0], ast.Tuple)
    assert len(splits[0].args[0].elts) == 3
    assert any(isinstance(node, ast.Attribute) and node.attr == "Wqkv" for node in ast.walk(splits[0].func))

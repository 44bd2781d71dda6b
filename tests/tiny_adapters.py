"""Tiny base models and LoRA adapters for them, written by PEFT, and tools to damage these as strangers would.

Used by the tests of the adapters' inspection.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from playground.adapters.facts import AdapterFacts, BaseLayers, Limits
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def tiny_krutrim() -> KrutrimForCausalLM:
    torch.manual_seed(0)
    attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 1, "alibi": True, "clip_qkv": 6.0}
    config = KrutrimConfig(
        d_model=16,
        n_heads=2,
        n_layers=2,
        vocab_size=64,
        max_seq_len=64,
        learned_pos_emb=False,
        no_bias=True,
        attn_config=attention,
    )
    return KrutrimForCausalLM(config).eval()


def write_adapter(folder: Path, model: PreTrainedModel, dtype: torch.dtype = torch.float32, **fields: Any) -> Path:
    """An adapter that does something (lora_B is not zero), saved by PEFT; the model stays as it is."""
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **fields})
    adapted = get_peft_model(deepcopy(model), config)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.to(dtype).save_pretrained(folder, save_embedding_layers=False)
    return folder


def load_with_peft(facts: AdapterFacts, folder: Path, model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model with the adapter on it; fails unless every tensor finds its place and none is left over."""
    adapted = get_peft_model(deepcopy(model), LoraConfig(**facts.peft_fields()))
    tensors = load_file(folder / WEIGHTS)
    result = set_peft_model_state_dict(adapted, tensors)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key]
    return adapted


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def read_parts(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The parsed header and the bytes after it."""
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(folder: Path, header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> None:
    """A safetensors file of any header, sound or not; `length` is what it claims the header to be."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Changes the tensors in place and writes the file again, with sound offsets."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refusal(folder: Path, base: BaseLayers, **limits: Any) -> str:
    """The sentence with which an adapter is refused; fails where it is not."""
    with pytest.raises(AdapterError) as caught:
        inspect_adapter(folder, base, Limits(**limits))
    return str(caught.value)

"""Checkpoints of any size, written at once: every tensor is zeros, and the files are holes on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_blank_llama(folder: Path, dtype: torch.dtype, *, layers: int, shards: int = 1, hidden: int = 1024) -> int:
    """A Llama in `shards` files, as the Hub has them; returns the number of its parameters."""
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        dtype=dtype,
    )
    with torch.device("meta"):
        tensors = list(LlamaForCausalLM(config).state_dict().items())
    folder.mkdir()
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    for number, name in enumerate(names):
        _write(folder / name, dict(tensors[number::shards]), dtype)
    where = {name: names[index % shards] for index, (name, _) in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return sum(tensor.numel() for _, tensor in tensors)


def _write(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)

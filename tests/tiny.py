"""Tiny models with random weights, written as real checkpoints: config.json, safetensors, tokenizer, catalog file.

Used by tests and benchmarks that need a model of a chosen size, or a damaged one, rather than a sensible answer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = 1, 2
VOCAB_SIZE = 320

CATALOG = """\
id = "{id}"
name = "{name}"
family = "Tiny"
kind = "chat"
parameters = {parameters}
dtype = "float32"
context_length = {context}
languages = ["en"]

[weights]
path = "{folder}"
bytes = {bytes}

[dimensions]
layers = {layers}
hidden_size = {hidden}
heads = {heads}
kv_heads = {heads}
head_dim = {head_dim}
vocab_size = {vocab}
tied_embeddings = false

[prompt]
template = "{{% for m in messages %}}{{{{ m.role[0] + ':' + m.content + ' ' }}}}{{% endfor %}}"
template_source = "user"
add_special_tokens = false

[[licences]]
text = "none"
source = "random"
"""


def byte_tokenizer(*, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """Bytes only, as the fallback of a SentencePiece vocabulary writes them; <s> and </s> are parsed in text."""
    vocab = {"<unk>": 0, "<s>": BOS, "</s>": EOS, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}, "▁": 259}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=adds_bos
    )


def write_tiny_model(
    root: Path,
    model_id: str,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 2,
    context: int = 128,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    """A random Llama that never ends by itself, in `root/model_id`; returns its catalog file `root/model_id.toml`."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or byte_tokenizer()
    vocab_size = max(VOCAB_SIZE, len(tokenizer))
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        bos_token_id=BOS,
        eos_token_id=None,
        initializer_range=0.3,  # spread enough that the argmax is no tie
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(root / model_id)
    tokenizer.save_pretrained(root / model_id)
    path = root / f"{model_id}.toml"
    size = sum(file.stat().st_size for file in (root / model_id).iterdir())
    text = CATALOG.format(
        id=model_id,
        name=f"Tiny {model_id}",
        parameters=model.num_parameters(),
        context=context,
        folder=model_id,
        bytes=size,
        layers=layers,
        hidden=hidden,
        heads=heads,
        head_dim=hidden // heads,
        vocab=vocab_size,
    )
    path.write_text(text, encoding="utf-8")
    return path

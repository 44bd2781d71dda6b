"""Krutrim-1 and KULLM3 in their full size with random weights, made on the device: nothing is downloaded.

Both from the dimensions of a catalog entry, so that a smaller one makes a smaller model. Used by gpu.py, and in the
processes that it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from model_registry.spec import FACTS, Dimensions, Dtype, ModelSpec, PromptFormat, Statement, Weights
from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.engines.checkpoints.attention import attention_for
from playground.placement.plan import Placement, Share
from playground.prompting.encoder import PromptEncoder
from playground.types import LoadProgress

CONTEXT = 4096
END = 0

KRUTRIM = {"layers": 32, "hidden_size": 4608, "heads": 48, "kv_heads": 8, "head_dim": 96, "vocab_size": 70400}
KULLM3 = {"layers": 48, "hidden_size": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab_size": 32000}
SMALL: dict[str, dict[str, int]] = {
    "krutrim": {**KRUTRIM, "layers": 2, "hidden_size": 384, "heads": 4, "kv_heads": 2, "vocab_size": 4000},
    "kullm3": {**KULLM3, "layers": 3, "hidden_size": 256, "heads": 2, "kv_heads": 1, "vocab_size": 3000},
}


def specs(*, small: bool) -> tuple[ModelSpec, ModelSpec]:
    """Krutrim-1, bfloat16, and KULLM3, float16; both float32 and tiny where small."""
    krutrim, kullm3 = (SMALL["krutrim"], SMALL["kullm3"]) if small else (KRUTRIM, KULLM3)
    return (
        _spec("krutrim", "float32" if small else "bfloat16", {**krutrim, "tied_embeddings": True}),
        _spec("kullm3", "float32" if small else "float16", {**kullm3, "tied_embeddings": False}),
    )


def _spec(name: str, dtype: Dtype, dimensions: dict[str, Any]) -> ModelSpec:
    return ModelSpec(
        id=name,
        name=name,
        family="random",
        kind="base",
        architecture="krutrim" if name == "krutrim" else "auto",
        parameters=1,
        dtype=dtype,
        context_length=CONTEXT,
        languages=("en",),
        weights=Weights(hub="random/weights", bytes=1),
        dimensions=Dimensions(**dimensions),
        prompt=PromptFormat(template="{{ messages[-1].content }}", template_source="user", add_special_tokens=False),
        licences=(Statement(text="none", source="random"),),
        sources={fact: "random" for fact in FACTS if fact != "released"},
    )


def placement(spec: ModelSpec, device: str) -> Placement:
    """Whole on the device, with cache for two contexts."""
    share = Share(device, 0, spec.dimensions.layers - 1, weight_bytes=0, kv_bytes=0, working_bytes=0)
    return Placement(spec.id, spec.dtype, "none", 2 * CONTEXT, (share,), "the benchmark puts it there")


def random_engine(spec: ModelSpec, place: Placement, report: Callable[[LoadProgress], None]) -> BatchedEngine:
    """What the loader does, with random weights; a process of its own calls it."""
    return engine_of(random_model(spec, place.device), spec, place.kv_tokens)


def engine_of(model: PreTrainedModel, spec: ModelSpec, kv_tokens: int = 2 * CONTEXT, **options: Any) -> BatchedEngine:
    encoder = PromptEncoder(spec, tokenizer(spec.dimensions.vocab_size))
    return BatchedEngine(model, encoder, options=BatchedOptions(kv_tokens=kv_tokens, **options))


def random_model(spec: ModelSpec, device: str, *, seed: int = 1, layers: int | None = None) -> PreTrainedModel:
    """Weights straight on the device, in the dtype of the spec; the same on every call. It never ends by itself.

    With the attention that the loader would choose.
    """
    config = config_of(spec, layers or spec.dimensions.layers)
    with torch.device("meta"):
        model = (KrutrimForCausalLM if spec.id == "krutrim" else LlamaForCausalLM)(config)
    model = model.to(getattr(torch, spec.dtype)).to_empty(device=device)
    model.tie_weights()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0 if name.endswith("bias") else 1)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
        model.get_output_embeddings().weight[END] = 0
    _restore_buffers(model, device)
    model.set_attn_implementation(attention_for(placement(spec, device)))
    return model.eval()


def _restore_buffers(model: PreTrainedModel, device: str) -> None:
    """`to_empty` leaves rotary frequencies undefined, which no checkpoint holds."""
    if isinstance(model, LlamaForCausalLM):
        fresh = type(model.model.rotary_emb)(model.config)
        for name, buffer in fresh.named_buffers():
            model.model.rotary_emb.register_buffer(name, buffer.to(device), persistent=False)
        model.model.rotary_emb.original_inv_freq = model.model.rotary_emb.inv_freq


def config_of(spec: ModelSpec, layers: int) -> KrutrimConfig | LlamaConfig:
    sizes = spec.dimensions
    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": END}
    if spec.id == "krutrim":
        return KrutrimConfig(
            d_model=sizes.hidden_size,
            n_layers=layers,
            n_heads=sizes.heads,
            vocab_size=sizes.vocab_size,
            max_seq_len=CONTEXT,
            attn_config={"attn_type": "grouped_query_attention", "kv_n_heads": sizes.kv_heads, "alibi": True},
            no_bias=True,
            **ends,
        )
    return LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.hidden_size * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=CONTEXT,
        **ends,
    )


def tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A vocabulary of words, so that every token is a text of its own."""
    vocab = {"<end>": END, **{f"▁w{number}": number for number in range(1, vocab_size)}}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<end>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<end>")


def meta_bytes(spec: ModelSpec, layers: int | None = None) -> int:
    """Of all parameters, a tied one counted once; with no weights made."""
    with torch.device("meta"):
        model = (KrutrimForCausalLM if spec.id == "krutrim" else LlamaForCausalLM)(
            config_of(spec, layers or spec.dimensions.layers)
        )
        model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters()) * getattr(torch, spec.dtype).itemsize


def deepest(spec: ModelSpec, free_bytes: int) -> int:
    """How many of the model's layers fit, in the dtype of the spec, into four fifths of that memory; 1 at least."""
    layers = range(spec.dimensions.layers, 1, -1)
    return next((count for count in layers if meta_bytes(spec, count) <= 0.8 * free_bytes), 1)

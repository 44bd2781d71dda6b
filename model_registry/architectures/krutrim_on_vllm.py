"""Krutrim on vLLM's Transformers backend, and what that backend would get wrong if it were allowed to.

vLLM builds the port (krutrim.py) and puts its own attention, linear layers and embedding into it. Imported by vLLM
alone, by the name that vllm_plugin.py gives it; needs vLLM.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.layers.linear import QKVParallelLinear
from vllm.model_executor.models.transformers import TransformersForCausalLM

from model_registry.architectures.krutrim import KrutrimAttention
from model_registry.architectures.krutrim_config import KrutrimConfig


class KrutrimOnVllm(TransformersForCausalLM):
    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config, parallel = vllm_config.model_config.hf_config, vllm_config.parallel_config
        require_divisible(config, tensors=parallel.tensor_parallel_size, stages=parallel.pipeline_parallel_size)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        # An adapter has one pair of matrices for the whole of Wqkv; vLLM would leave it out of the layer otherwise.
        self.packed_modules_mapping["Wqkv"] = ["Wqkv"]
        if parallel.tensor_parallel_size > 1:
            require_split_by_heads(self.model)


def require_divisible(config: KrutrimConfig, *, tensors: int, stages: int) -> None:
    """ValueError where `tensors` devices a layer, or `stages` groups of layers, would compute another model."""
    if tensors > 1 and config.attn_config["qk_ln"]:
        raise ValueError(
            "attn_config.qk_ln=True: its norms go over all heads at once, so that no device can have some of them. "
            "Serve this model with --tensor-parallel-size 1."
        )
    if stages > 1 and config.learned_pos_emb:
        raise ValueError(
            "learned_pos_emb=True: every stage would add the learned positions again. "
            "Serve this model with --pipeline-parallel-size 1."
        )


def require_split_by_heads(model: Any) -> None:
    """ValueError where vLLM left a Wqkv whole: each device would attend with all heads, and out_proj add them up."""
    attentions = [module for module in model.modules() if isinstance(module, KrutrimAttention)]
    if not all(isinstance(attention.Wqkv, QKVParallelLinear) for attention in attentions):
        raise ValueError(
            "This release of vLLM cannot split Krutrim's Wqkv by heads (0.32 can): "
            "install another, or serve this model with --tensor-parallel-size 1."
        )

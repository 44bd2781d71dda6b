"""Krutrim-1 (an MPT-style decoder: grouped-query attention, ALiBi, clipped Q/K/V) for current transformers.

Loads the original checkpoints as they are, under their own parameter names, and runs none of the code beside them.
Reading order: settings (krutrim_config.py), ALiBi (krutrim_alibi.py), attention, feed-forward, block, model, language
model head. Knows nothing of catalogs or engines; the loader, the stand-ins' training and the vLLM plugin use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from model_registry.architectures.krutrim_alibi import alibi_columns
from model_registry.architectures.krutrim_checks import require_agreement, require_positions
from model_registry.architectures.krutrim_config import KrutrimConfig, activation

__all__ = ["KrutrimConfig", "KrutrimForCausalLM", "KrutrimModel", "register"]


def build_norm(config: KrutrimConfig, width: int, norm_type: str) -> nn.Module:
    """low_precision_ norms differ from the others under autocast only, that is, in training."""
    if norm_type.endswith("layernorm"):
        return nn.LayerNorm(width, eps=config.layer_norm_epsilon, bias=not config.no_bias)
    return nn.RMSNorm(width, eps=config.layer_norm_epsilon)


class KrutrimAttention(nn.Module):
    def __init__(self, config: KrutrimConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.v_head_dim
        self.kernel_width = config.head_dim
        self.num_key_value_groups = config.n_heads // config.num_key_value_heads
        self.scaling = config.softmax_scale
        self.is_causal = True
        self.q_width, self.kv_width = config.d_model, config.num_key_value_heads * config.v_head_dim
        self.Wqkv = nn.Linear(config.d_model, self.q_width + 2 * self.kv_width, bias=not config.no_bias)
        if config.attn_config["qk_ln"]:
            self.q_ln = build_norm(config, config.d_model, config.attn_config["norm_type"])
            self.k_ln = build_norm(config, self.kv_width, config.attn_config["norm_type"])
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=not config.no_bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        alibi: tuple[Tensor, Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        # vLLM finds this split of Wqkv in the source, and gives each device its own heads' rows.
        query, key, value = self.clip(self.Wqkv(hidden_states)).split(
            (self.q_width, self.kv_width, self.kv_width), dim=-1
        )
        query, key, value = self.to_heads(query, key, value)
        if alibi is not None:
            query, key, value = self.widen(query, key, value, alibi)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attn_config["attn_pdrop"] if self.training else 0.0
        output, weights = attention_interface(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        input_shape = hidden_states.shape[:-1]
        output = output.reshape(*input_shape, -1, self.kernel_width)[..., : self.head_dim]
        return self.out_proj(output.reshape(*input_shape, -1)), weights

    def clip(self, qkv: Tensor) -> Tensor:
        limit = self.config.attn_config["clip_qkv"]
        return qkv.clamp(min=-limit, max=limit) if limit else qkv

    def to_heads(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Each (batch, length, its heads * head_dim) -> (batch, its heads, length, head_dim)."""
        if self.config.attn_config["qk_ln"]:
            query, key = self.q_ln(query), self.k_ln(key)
        shape = (*query.shape[:-1], -1, self.head_dim)
        return [x.reshape(shape).transpose(1, 2) for x in (query, key, value)]

    def widen(self, query: Tensor, key: Tensor, value: Tensor, alibi: tuple[Tensor, Tensor]) -> list[Tensor]:
        """All three from head_dim to kernel_width: query and key by their ALiBi columns, value by zeros."""
        # A tensor-parallel Wqkv gives this device's heads alone.
        first = getattr(self.Wqkv, "tp_rank", 0) * query.shape[1]
        columns = (alibi[0][:, first : first + query.shape[1]], alibi[1])
        pairs = zip((query, key), columns, strict=True)
        wide = [torch.cat([x, more.to(x.dtype).expand(*x.shape[:-1], -1)], dim=-1) for x, more in pairs]
        return [*wide, F.pad(value, (0, self.kernel_width - self.head_dim))]


class KrutrimMLP(nn.Module):
    def __init__(self, config: KrutrimConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.intermediate_size, bias=not config.no_bias)
        self.act = activation(config.ffn_config["ffn_act_fn"])
        self.down_proj = nn.Linear(config.intermediate_size, config.d_model, bias=not config.no_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.up_proj(x)))


class KrutrimBlock(GradientCheckpointingLayer):
    def __init__(self, config: KrutrimConfig, layer_idx: int) -> None:
        super().__init__()
        self.norm_1 = build_norm(config, config.d_model, config.norm_type)
        self.attn = KrutrimAttention(config, layer_idx)
        self.norm_2 = build_norm(config, config.d_model, config.norm_type)
        self.ffn = KrutrimMLP(config)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor, **kwargs: Unpack[TransformersKwargs]) -> Tensor:
        attended, _ = self.attn(self.norm_1(hidden_states), **kwargs)
        hidden_states = hidden_states + self.resid_dropout(attended)
        return hidden_states + self.resid_dropout(self.ffn(self.norm_2(hidden_states)))


class KrutrimPreTrainedModel(PreTrainedModel):
    config: KrutrimConfig
    config_class = KrutrimConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _input_embed_layer = "wte"
    _no_split_modules = ["KrutrimBlock"]  # noqa: RUF012 (as transformers declares it)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": KrutrimBlock, "attentions": KrutrimAttention}  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers; ValueError where config.json and the weight files do not describe the same model."""
        any_shape = kwargs.pop("ignore_mismatched_sizes", False)
        # Allowed to transformers, whose own refusal names no tensor.
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
        model, info = loaded
        require_agreement(model, info, any_shape=any_shape)
        return (model, info) if output_loading_info else model


class KrutrimModel(KrutrimPreTrainedModel):
    """Token ids to final hidden states."""

    def __init__(self, config: KrutrimConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        if config.learned_pos_emb:
            self.wpe = nn.Embedding(config.max_seq_len, config.d_model)
        self.emb_drop = nn.Dropout(config.emb_pdrop)
        self.blocks = nn.ModuleList([KrutrimBlock(config, index) for index in range(config.n_layers)])
        self.norm_f = build_norm(config, config.d_model, config.norm_type)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """input_ids (batch, length), or inputs_embeds (batch, length, d_model) -> last_hidden_state, the same shape."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        inputs_embeds = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        # Explicit positions without a cache may be several texts in one row.
        if self.config.learned_pos_emb and (position_ids is None or past_key_values is not None):
            require_positions(self.config.max_seq_len, inputs_embeds.shape[1], past_key_values)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = self.positions(inputs_embeds, attention_mask, past_key_values)
        mask = create_causal_mask(self.config, inputs_embeds, attention_mask, past_key_values, position_ids)
        hidden_states = self.embed(inputs_embeds, position_ids)
        shared: dict[str, Any] = {"position_ids": position_ids, "past_key_values": past_key_values, **kwargs}
        if self.config.attn_config["alibi"]:
            shared["alibi"] = alibi_columns(self.config, position_ids, hidden_states.dtype)
        for block in self.blocks:
            hidden_states = block(hidden_states, attention_mask=mask, **shared)
        return BaseModelOutputWithPast(last_hidden_state=self.norm_f(hidden_states), past_key_values=past_key_values)

    def positions(self, embeds: Tensor, attention_mask: Tensor | None, cache: Cache | None) -> Tensor:
        """Places in the row, less the padding before them: a learned position counts real tokens only."""
        seen = cache.get_seq_length() if cache is not None else 0
        places = (torch.arange(embeds.shape[1], device=embeds.device) + seen)[None]
        if attention_mask is None or attention_mask.dim() != 2:
            return places
        padding = (attention_mask == 0).long().cumsum(-1)
        return (places - padding.gather(1, places.expand(len(padding), -1))).clamp(min=0)

    def embed(self, embeds: Tensor, position_ids: Tensor) -> Tensor:
        if self.config.learned_pos_emb:
            embeds = embeds + self.wpe(position_ids)
        fraction = self.config.embedding_fraction
        if fraction != 1:
            # Shrinks the gradient and leaves the value.
            embeds = embeds * fraction + embeds.detach() * (1 - fraction)
        return self.emb_drop(embeds)


class KrutrimForCausalLM(KrutrimPreTrainedModel, GenerationMixin):
    """KrutrimModel with the vocabulary head, tied to wte unless the config says otherwise."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012

    def __init__(self, config: KrutrimConfig) -> None:
        super().__init__(config)
        self.transformer = KrutrimModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """As KrutrimModel, and logits (batch, length or as logits_to_keep says, vocab_size); loss where labels are."""
        outputs: Any = self.transformer(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache=use_cache, **kwargs
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        if self.config.logit_scale != 1:
            logits = logits * self.config.logit_scale
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions)


def register() -> None:
    """Makes AutoConfig, AutoModel and AutoModelForCausalLM know `model_type: "krutrim"`. May be called again."""
    AutoConfig.register(KrutrimConfig.model_type, KrutrimConfig, exist_ok=True)
    AutoModel.register(KrutrimConfig, KrutrimModel, exist_ok=True)
    AutoModelForCausalLM.register(KrutrimConfig, KrutrimForCausalLM, exist_ok=True)

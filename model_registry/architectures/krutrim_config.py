"""The settings of a Krutrim (MPT-style) checkpoint, read from a config.json and checked key by key.

Honours every setting of llm-foundry v0.6.0 that changes the result, or refuses it (krutrim_keys.py has the keys that
are no fields). Knows nothing of tensors. krutrim.py builds the model from it and re-exports it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from transformers import PreTrainedConfig

from model_registry.architectures.krutrim_keys import (
    ATTN_DEFAULTS,
    ATTN_FIXED,
    ATTN_HARMLESS,
    FFN_DEFAULTS,
    FFN_FIXED,
    GELU,
    is_count,
    is_number,
    known_extras,
    nested,
    require,
)

NORM_TYPES = ("low_precision_layernorm", "layernorm", "low_precision_rmsnorm", "rmsnorm")
# Head widths that vLLM's and flash attention's kernels are built for.
KERNEL_WIDTHS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
ALIBI_COLUMNS = 8
ALIBI_POSITIONS = 65_536


class KrutrimConfig(PreTrainedConfig):
    """Reads `model_type: "mpt"` (the original) and `"krutrim"` (what save_pretrained writes).

    ValueError, naming field and value, for whatever would change the result and is not supported. After construction
    `attn_config` and `ffn_config` hold every setting, `attn_config["kv_n_heads"]` and `logit_scale` are numbers.
    """

    model_type = "krutrim"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "max_position_embeddings": "max_seq_len",
    }
    # How a server may spread the model: Wqkv and out_proj are not here, for only vLLM knows how to split Wqkv by heads.
    base_model_tp_plan: ClassVar[dict[str, str]] = {
        "blocks.*.ffn.up_proj": "colwise",
        "blocks.*.ffn.down_proj": "rowwise",
    }
    base_model_pp_plan: ClassVar[dict[str, Sequence[list[str]]]] = {
        "wte": (["input_ids"], ["inputs_embeds"]),
        "blocks": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm_f": (["hidden_states"], ["hidden_states"]),
    }

    d_model: int = 2048
    n_heads: int = 16
    n_layers: int = 24
    expansion_ratio: int | float = 4
    max_seq_len: int = 2048
    vocab_size: int = 50368
    resid_pdrop: float = 0.0
    emb_pdrop: float = 0.0
    learned_pos_emb: bool = True
    attn_config: dict[str, Any] = field(default_factory=dict)
    ffn_config: dict[str, Any] = field(default_factory=dict)
    logit_scale: float | str | None = None
    no_bias: bool = False
    embedding_fraction: float = 1.0
    norm_type: str = "low_precision_layernorm"
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        model_type = kwargs.pop("model_type", self.model_type)
        require(model_type in ("mpt", "krutrim"), "model_type", model_type, "'mpt' or 'krutrim'")
        if self.architectures == ["MPTForCausalLM"]:
            self.architectures = ["KrutrimForCausalLM"]
        self._check_sizes()
        self._check_rest()
        self._check_attention()
        self._check_ffn()
        super().__post_init__(**known_extras(kwargs))

    def _check_sizes(self) -> None:
        for name in ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size"):
            require(is_count(getattr(self, name)), name, getattr(self, name), "a positive integer")
        require(self.d_model % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of d_model={self.d_model}")

    def _check_attention(self) -> None:
        attn = nested("attn_config", self.attn_config, ATTN_DEFAULTS, ATTN_FIXED, ATTN_HARMLESS)
        self.attn_config = attn
        for key in ("qk_ln", "alibi"):
            require(isinstance(attn[key], bool), f"attn_config.{key}", attn[key], "true or false")
        for key, numbers, ok in (
            ("clip_qkv", "null or a number from 0", lambda x: x is None or (is_number(x) and x >= 0)),
            ("softmax_scale", "null or a number above 0", lambda x: x is None or (is_number(x) and x > 0)),
            ("alibi_bias_max", "a number above 0", lambda x: is_number(x) and x > 0),
            ("attn_pdrop", "a probability", lambda x: is_number(x) and 0 <= x <= 1),
            ("norm_type", f"one of {NORM_TYPES}", lambda x: x in NORM_TYPES),
        ):
            require(ok(attn[key]), f"attn_config.{key}", attn[key], numbers)
        attn["kv_n_heads"] = self._resolve_kv_n_heads(attn["attn_type"], attn["kv_n_heads"])
        if attn["alibi"]:
            # llm-foundry switches learned positions off where ALiBi is on, whatever the file says.
            self.learned_pos_emb = False
            wants = f"at most {ALIBI_POSITIONS}, up to where ALiBi is exact in 16 bits"
            require(self.max_seq_len <= ALIBI_POSITIONS, "max_seq_len", self.max_seq_len, wants)

    def _resolve_kv_n_heads(self, attn_type: Any, given: Any) -> int:
        if attn_type == "grouped_query_attention":
            fits = is_count(given) and self.n_heads % given == 0
            require(fits, "attn_config.kv_n_heads", given, f"a divisor of n_heads={self.n_heads}")
            return int(given)
        heads = {"multihead_attention": self.n_heads, "multiquery_attention": 1}
        require(attn_type in heads, "attn_config.attn_type", attn_type, f"grouped_query_attention or one of {[*heads]}")
        implied = heads[attn_type]
        require(given in (None, implied), "attn_config.kv_n_heads", given, f"{implied}, as {attn_type} implies")
        return implied

    def _check_ffn(self) -> None:
        ffn = nested("ffn_config", self.ffn_config, FFN_DEFAULTS, FFN_FIXED, frozenset({"model_type"}))
        self.ffn_config = ffn
        ratio, width = self.expansion_ratio, ffn["ffn_hidden_size"]
        if width is None:
            fits = is_number(ratio) and ratio > 0 and self.d_model * ratio == int(self.d_model * ratio)
            require(fits, "expansion_ratio", ratio, f"a number that makes d_model={self.d_model} times it whole")
        else:
            require(is_count(width), "ffn_config.ffn_hidden_size", width, "a positive integer")
        ffn["ffn_act_fn"] = dict(GELU) if ffn["ffn_act_fn"] is None else ffn["ffn_act_fn"]
        _check_activation(ffn["ffn_act_fn"])

    def _check_rest(self) -> None:
        self.norm_type = str(self.norm_type).lower()
        if self.logit_scale == "inv_sqrt_d_model":
            self.logit_scale = 1 / math.sqrt(self.d_model)
        self.logit_scale = 1.0 if self.logit_scale is None else self.logit_scale
        for name, wants, ok in (
            ("no_bias", "true or false", lambda x: isinstance(x, bool)),
            ("learned_pos_emb", "true or false", lambda x: isinstance(x, bool)),
            ("tie_word_embeddings", "true or false", lambda x: isinstance(x, bool)),
            ("resid_pdrop", "a probability", lambda x: is_number(x) and 0 <= x <= 1),
            ("emb_pdrop", "a probability", lambda x: is_number(x) and 0 <= x <= 1),
            ("embedding_fraction", "a number in (0, 1]", lambda x: is_number(x) and 0 < x <= 1),
            ("layer_norm_epsilon", "a number above 0", lambda x: is_number(x) and x > 0),
            ("norm_type", f"one of {NORM_TYPES}", lambda x: x in NORM_TYPES),
            ("logit_scale", "null, a number or 'inv_sqrt_d_model'", is_number),
            ("is_encoder_decoder", "false", lambda x: x is False),
        ):
            require(ok(getattr(self, name)), name, getattr(self, name), wants)

    @property
    def num_key_value_heads(self) -> int:
        return int(self.attn_config["kv_n_heads"])

    @property
    def intermediate_size(self) -> int:
        return int(self.ffn_config["ffn_hidden_size"] or self.d_model * self.expansion_ratio)

    @property
    def v_head_dim(self) -> int:
        """The head's own width, d_model / n_heads: what a value vector carries."""
        return self.d_model // self.n_heads

    @property
    def head_dim(self) -> int:
        """The width that attention kernels and caches see: with ALiBi, the narrowest kernel width with room for its
        columns beside the head's own (Krutrim: 96 -> 112), beyond 256 the next multiple of 32; else v_head_dim."""
        if not self.attn_config["alibi"]:
            return self.v_head_dim
        needed = self.v_head_dim + ALIBI_COLUMNS
        return next((width for width in KERNEL_WIDTHS if width >= needed), -(-needed // 32) * 32)

    @property
    def alibi_bias_max(self) -> float:
        return float(self.attn_config["alibi_bias_max"])

    @property
    def softmax_scale(self) -> float:
        """What q·k is multiplied by before ALiBi is added."""
        return float(self.attn_config["softmax_scale"] or 1 / math.sqrt(self.v_head_dim))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # Overrides are merged before construction, so that they are checked like the rest.
        overrides = {key: kwargs.pop(key) for key in cls.__annotations__.keys() & kwargs.keys()}
        return super().from_dict({**config_dict, **overrides}, **kwargs)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config_dict, rest = super().get_config_dict(*args, **kwargs)
        if not config_dict:
            # transformers would build the default model.
            raise FileNotFoundError(f"{(args or [''])[0]} has no config.json, or an empty one.")
        if config_dict.get("model_type") == "mpt":
            # Renamed before transformers compares it, so that it does not warn of a foreign model type.
            config_dict["model_type"] = cls.model_type
        return config_dict, rest


def activation(spec: dict[str, Any]) -> partial[Any]:
    """The function of torch.nn.functional that `ffn_act_fn` names, with its keyword arguments bound.

    Source: llm-foundry v0.6.0 takes any name of that module. AttributeError or KeyError where there is none.
    """
    arguments = dict(spec)
    return partial(getattr(F, arguments.pop("name")), **arguments)


def _check_activation(spec: Any) -> None:
    probe = torch.linspace(-1.0, 1.0, 5, device="cpu")
    try:
        result = activation(spec)(probe.clone())
    except Exception as error:
        raise ValueError(f"ffn_config.ffn_act_fn={spec!r} cannot be called: {error}") from error
    works = isinstance(result, torch.Tensor) and result.shape == probe.shape
    require(works, "ffn_config.ffn_act_fn", spec, "a function that keeps the shape of its input")

"""In 16 bits the port says what it says in 32, as far as 16 bits go, near the end of the context too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM

LARGEST_ERROR = 2e-2
"""Of the logits, relative: norm of the difference over norm."""


def model(dtype: torch.dtype, **attention: Any) -> KrutrimForCausalLM:
    """Krutrim-1's widths of a head, six heads a group, two layers; the weights are those of 16 bits, whatever dtype."""
    torch.manual_seed(0)
    attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 1, "alibi": True, **attention}
    config = KrutrimConfig(
        d_model=576, n_heads=6, n_layers=2, vocab_size=1000, max_seq_len=4096, attn_config=attention, no_bias=True,
        initializer_range=0.04,
    )  # fmt: skip
    return KrutrimForCausalLM(config).eval().to(torch.bfloat16).to(dtype)


@pytest.mark.parametrize("attention", [{}, {"clip_qkv": 1.0}])
@pytest.mark.parametrize("first", [0, 4096 - 200])
def test_bfloat16_logits_are_those_of_float32(first: int, attention: dict[str, Any]) -> None:
    ids = torch.randint(0, 1000, (1, 200), generator=torch.Generator().manual_seed(1))
    places = torch.arange(first, first + 200)[None]
    with torch.no_grad():
        low, high = (
            model(dtype, **attention)(ids, position_ids=places, use_cache=False).logits.float()
            for dtype in (torch.bfloat16, torch.float32)
        )
    error = (low - high).norm() / high.norm()
    assert 1e-4 < error < LARGEST_ERROR

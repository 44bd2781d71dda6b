"""ALiBi as extra columns of q and k: exact in 16 bits, at Krutrim's sizes, up to the end of its context and beyond."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from model_registry.architectures.krutrim import KrutrimAttention, KrutrimConfig, KrutrimForCausalLM
from model_registry.architectures.krutrim_alibi import alibi_columns, alibi_slopes, exact_parts
from tests.model_registry.architectures.mpt_reference import slopes

HEADS, GROUPS, WIDTH = 48, 8, 96
CONTEXT = 4096


def krutrim_config(**attn: object) -> KrutrimConfig:
    """Krutrim-1's attention in one layer of one narrow model: 48 heads of 96, 8 of them for keys and values."""
    return KrutrimConfig(
        d_model=HEADS * WIDTH,
        n_heads=HEADS,
        n_layers=1,
        max_seq_len=CONTEXT,
        vocab_size=8,
        expansion_ratio=1,
        no_bias=True,
        attn_config={"attn_type": "grouped_query_attention", "kv_n_heads": GROUPS, "alibi": True, **attn},
    )


@pytest.fixture(scope="module")
def attention() -> KrutrimAttention:
    with torch.device("meta"):
        return KrutrimAttention(krutrim_config(), layer_idx=0).eval()


@pytest.mark.parametrize("n_heads", [1, 2, 3, 6, 7, 8, 12, 20, 32, 33, 48, 64, 100])
@pytest.mark.parametrize("bias_max", [1, 4, 8, 16, 8.5])
def test_slopes(n_heads: int, bias_max: float) -> None:
    wanted = torch.tensor(slopes(n_heads, bias_max), dtype=torch.float64)
    assert alibi_slopes(n_heads, bias_max).shape == (n_heads,)
    torch.testing.assert_close(alibi_slopes(n_heads, bias_max).double(), wanted, rtol=3e-7, atol=0)


def test_three_parts_of_eight_bits_are_the_number() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(10_000) * 10.0 ** torch.randint(-6, 6, (10_000,))
    parts = exact_parts(numbers, 3)
    assert all(torch.equal(part.bfloat16().float(), part) for part in parts)
    assert torch.equal(parts[0] + parts[1] + parts[2], numbers)


@pytest.mark.parametrize("bias_max", [4, 8, 16])
def test_columns_are_exact_in_bfloat16_and_give_the_bias(bias_max: float) -> None:
    config = krutrim_config(alibi_bias_max=bias_max)
    positions = torch.tensor([[0, 1, 255, 256, 257, 1000, 3999, 4000, 4095, 8191, 65_535]])
    q_columns, k_columns = alibi_columns(config, positions, torch.float32)
    for columns in (q_columns, k_columns):
        assert columns.shape[-1] == config.head_dim - config.v_head_dim
        assert torch.equal(columns.bfloat16().float(), columns)
    bias = q_columns.double() @ k_columns.double().transpose(2, 3) * config.softmax_scale
    distance = (positions[:, None, :] - positions[:, :, None]).double()
    wanted = torch.tensor(slopes(HEADS, bias_max), dtype=torch.float64)[:, None, None] * distance
    # A term that all keys of a row share changes no probability; it only has to be small.
    shared = (bias - wanted).diagonal(dim1=-2, dim2=-1)[..., None]
    assert (bias - wanted - shared).abs().max() < 1e-6 * 65_536
    assert (shared[:, :, :9].abs() < 0.25).all()


def test_float16_holds_the_columns_too() -> None:
    positions = torch.arange(0, 65_536, 17)[None]
    for columns in alibi_columns(krutrim_config(), positions, torch.float16):
        assert columns.isfinite().all()
    q_columns, k_columns = alibi_columns(krutrim_config(), positions[:, :200], torch.float16)
    exact = alibi_columns(krutrim_config(), positions[:, :200], torch.float64)
    torch.testing.assert_close(
        q_columns.double() @ k_columns.double().transpose(2, 3), exact[0] @ exact[1].transpose(2, 3), rtol=0, atol=0.02
    )


def queries_and_keys(last: int, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """bfloat16 queries of the last four places up to `last`, keys of all places, and the queries' positions."""
    torch.manual_seed(0)
    places = torch.arange(last - 3, last + 1)[None]
    query = (torch.randn(1, HEADS, 4, WIDTH) * strength).bfloat16()
    key = (torch.randn(1, GROUPS, last + 1, WIDTH) * strength).bfloat16()
    return query, key, places


def reference_probabilities(query: Tensor, key: Tensor, places: Tensor) -> Tensor:
    """(heads, queries, keys) in float64, with the bias of slope times distance added to every score."""
    scores = query.double()[0] @ key.double()[0].repeat_interleave(HEADS // GROUPS, 0).transpose(1, 2) * WIDTH**-0.5
    distance = torch.arange(key.shape[2])[None, :] - places[0][:, None]
    bias = torch.tensor(slopes(HEADS, 8), dtype=torch.float64)[:, None, None] * distance
    return torch.softmax((scores + bias).masked_fill(distance > 0, -torch.inf), -1)


def causal(places: Tensor, keys: int) -> Tensor:
    return (torch.arange(keys)[None, :] <= places[0][:, None])[None, None]


def widened(attention: KrutrimAttention, query: Tensor, key: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    config = attention.config
    q_columns, _ = alibi_columns(config, places, torch.bfloat16)
    _, k_columns = alibi_columns(config, torch.arange(key.shape[2])[None], torch.bfloat16)
    wide_query, wide_key, wide_value = attention.widen(query, key, key, (q_columns, k_columns))  # type: ignore[arg-type]
    assert wide_query.shape[-1] == wide_key.shape[-1] == wide_value.shape[-1] == 112
    assert wide_query.dtype == torch.bfloat16
    return wide_query, wide_key


@pytest.mark.parametrize(("last", "strength"), [(4000, 1.0), (CONTEXT - 1, 0.0)])
def test_bfloat16_probabilities_of_the_sdpa_kernel(attention: KrutrimAttention, last: int, strength: float) -> None:
    """Probabilities are read off the kernel by values that are one-hot, each time for another 112 keys."""
    query, key, places = queries_and_keys(last, strength)
    wide_query, wide_key = widened(attention, query, key, places)
    wanted = reference_probabilities(query, key, places)
    for first in [*range(0, last - 224, 900), last - 223, last - 111]:
        one_hot = torch.zeros(1, GROUPS, last + 1, 112, dtype=torch.bfloat16)
        one_hot[:, :, first : first + 112] = torch.eye(112)
        output, _ = sdpa_attention_forward(
            attention, wide_query, wide_key, one_hot, causal(places, last + 1), scaling=attention.scaling
        )
        found, expected = output[0].transpose(0, 1).double(), wanted[:, :, first : first + 112]
        assert ((found - expected).abs() <= 0.01 * expected + 1e-5).all()


@pytest.mark.parametrize("last", [4000, CONTEXT - 1])
def test_bfloat16_probabilities_of_eager_attention(attention: KrutrimAttention, last: int) -> None:
    """Eager attention rounds the scores to bfloat16 as well; the columns keep those that matter small."""
    query, key, places = queries_and_keys(last, 0.25)
    wide_query, wide_key = widened(attention, query, key, places)
    mask = torch.zeros(causal(places, last + 1).shape).masked_fill(~causal(places, last + 1), -torch.inf).bfloat16()
    _, found = eager_attention_forward(attention, wide_query, wide_key, wide_key, mask, scaling=attention.scaling)
    wanted = reference_probabilities(query, key, places)
    assert ((found[0].double() - wanted).abs() <= 0.05 * wanted + 1e-3).all()


@pytest.mark.parametrize("attention_name", ["sdpa", "eager"])
def test_a_bfloat16_model_is_no_worse_at_position_4000_than_at_the_start(attention_name: str) -> None:
    """ALiBi is relative: the same tokens, 4,000 places later, have the same logits up to bfloat16's rounding."""
    torch.manual_seed(0)
    config = KrutrimConfig(
        d_model=HEADS * 8, n_heads=HEADS, n_layers=2, vocab_size=64, max_seq_len=CONTEXT, attn_config={"alibi": True}
    )
    config._attn_implementation = attention_name
    model = KrutrimForCausalLM(config).bfloat16().eval()
    input_ids, positions = torch.randint(64, (4, 48)), torch.arange(48)[None]
    with torch.no_grad():
        start, later = (model(input_ids, position_ids=positions + offset).logits.double() for offset in (0, 4000))
        exact = model.double()(input_ids, position_ids=positions).logits
    rounding = (start - exact).norm()
    assert rounding < 0.05 * exact.norm()
    assert (later - exact).norm() < 1.2 * rounding


def test_kernel_widths() -> None:
    widths = {96: 112, 8: 32, 24: 32, 56: 64, 64: 80, 80: 96, 88: 96, 104: 112, 120: 128, 128: 160, 248: 256, 256: 288}
    for own, padded in widths.items():
        config = KrutrimConfig(d_model=2 * own, n_heads=2, attn_config={"alibi": True})
        assert (config.v_head_dim, config.head_dim) == (own, padded)
        assert KrutrimConfig(d_model=2 * own, n_heads=2).head_dim == own

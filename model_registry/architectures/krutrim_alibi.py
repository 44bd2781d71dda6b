"""ALiBi for attention kernels that know nothing of it: columns beside the queries and keys, whose product it is.

Exact in bfloat16 up to position 65,535. Used by krutrim.py alone; knows no modules and no weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model_registry.architectures.krutrim_config import ALIBI_COLUMNS, KrutrimConfig


def alibi_slopes(n_heads: int, bias_max: float, device: torch.device | None = None) -> Tensor:
    """One slope a head, (n_heads,) float32, in llm-foundry's order for head counts that are no power of two."""
    size = 1 << (n_heads - 1).bit_length()
    exponents = torch.arange(1, size + 1, dtype=torch.float32, device=device) * (bias_max / size)
    slopes = torch.exp2(-exponents)
    return slopes if size == n_heads else torch.cat([slopes[1::2], slopes[::2]])[:n_heads]


def exact_parts(x: Tensor, count: int) -> list[Tensor]:
    """Splits float32 into parts of 8 significant bits, exact in bfloat16; three of them add up to x exactly."""
    parts = []
    for _ in range(count):
        # Cut in the bit pattern: a compiler may drop a cast to bfloat16 and back.
        part = (x.view(torch.int32) & -65536).view(torch.float32)
        parts.append(part)
        x = x - part
    return parts


def alibi_columns(config: KrutrimConfig, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Columns that, appended to q and k, add slope * (k_pos - q_pos) to every score of any attention kernel.

    position_ids (batch, length), below 65,536 -> q columns (batch, n_heads, length, head_dim - v_head_dim) and
    k columns (batch, 1, length, head_dim - v_head_dim). Every entry is exact in bfloat16: a position is its high and
    its low byte, a slope (over the softmax scale, which the kernel multiplies by) three parts, and the query's own
    term two, which cancels the bulk of the sum, so that a kernel that rounds scores rounds small ones.
    """
    slopes = alibi_slopes(config.n_heads, config.alibi_bias_max, position_ids.device) / config.softmax_scale
    parts = torch.stack(exact_parts(slopes, 3), -1)
    own = slopes[:, None] * position_ids[:, None, :].float() / 256
    own_parts = torch.stack(exact_parts(own, 2), -1)
    slope_columns = torch.cat([parts * 256, parts], -1)[None, :, None, :].expand(*own.shape, 6)
    high, low = position_ids >> 8, position_ids & 255
    # The query's own term is divided by 256 above, and multiplied back here, to keep clear of float16's limit.
    cancel = torch.full_like(high, -256)
    padding = (0, config.head_dim - config.v_head_dim - ALIBI_COLUMNS)
    q_columns = F.pad(torch.cat([slope_columns, own_parts], -1), padding)
    k_columns = F.pad(torch.stack([high, high, high, low, low, low, cancel, cancel], -1), padding)[:, None]
    return q_columns.to(dtype), k_columns.to(dtype)

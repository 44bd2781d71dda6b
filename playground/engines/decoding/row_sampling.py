"""How the next token is chosen, row by row: each row of a batch has its own parameters and its own seed.

The noise is no generator's state but a hash of (seed, position, token id), so a request's choices do not depend on
what else is in the batch. Added to logits / temperature as Gumbel noise, it makes the argmax an exact sample of the
softmax. Pure functions of tensors; both token loops call `choose`, so that they choose alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from playground.types import SamplingParams

COLDEST = 1e-5
"""Temperatures below it are greedy: dividing by them leaves float32's range, and the choice would be the same."""


@dataclass(frozen=True, slots=True)
class RowSampling:
    """A request's parameters as the batch needs them. `slot`: its row in the mask of seen tokens, -1 for none."""

    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    slot: int = -1

    @classmethod
    def of(cls, params: SamplingParams, slot: int) -> RowSampling:
        penalty = params.repetition_penalty
        slot = slot if penalty != 1 else -1
        if params.temperature < COLDEST:
            return cls(repetition_penalty=penalty, slot=slot)
        top_k = min(params.top_k, 2**31 - 1)
        return cls(params.seed, params.temperature, top_k, params.top_p, penalty, slot)


GREEDY = RowSampling()


@dataclass(frozen=True, slots=True)
class Stages:
    """Which parts of the work a batch asks for."""

    penalty: bool = False
    filters: bool = False
    noise: bool = False

    @classmethod
    def all(cls) -> Stages:
        return cls(penalty=True, filters=True, noise=True)

    @classmethod
    def of(cls, rows: list[RowSampling]) -> Stages:
        return cls(
            penalty=any(row.repetition_penalty != 1 for row in rows),
            filters=any(row.top_k or row.top_p < 1 for row in rows),
            noise=any(row.temperature > 0 for row in rows),
        )


def columns(rows: Sequence[RowSampling], positions: Sequence[int], vocab_size: int) -> Tensor:
    """(6, rows) int32: seed, position, top_k, and the bits of temperature, 1 - top_p, penalty."""
    whole = [
        [row.seed - ((row.seed >> 31) << 32) for row in rows],
        list(positions),
        [min(row.top_k or vocab_size, vocab_size) for row in rows],
    ]
    real = [
        [row.temperature for row in rows],
        [1 - row.top_p for row in rows],
        [row.repetition_penalty for row in rows],
    ]
    floats = torch.tensor(real, dtype=torch.float32).view(torch.int32)
    return torch.cat([torch.tensor(whole, dtype=torch.int32), floats])


def choose(scores: Tensor, columns: Tensor, stages: Stages, seen: Tensor | None, token_ids: Tensor) -> Tensor:
    """Scores whose argmax is the next token: penalty, temperature, top-k, top-p and noise, in the order of `generate`.

    Args:
        scores: (rows, vocab) float32 logits.
        columns: (6, rows) int32, from `columns`.
        stages: those that any row asks for; more change nothing.
        seen: (rows, vocab) bool, tokens of the prompt and the answer so far; needed where stages.penalty is.
        token_ids: (vocab,) int32, 0 and up.
    """
    seeds, positions, top_k = columns[0], columns[1], columns[2].long()
    temperature, tail, penalty = columns[3:6].view(torch.float32)
    if stages.penalty:
        assert seen is not None
        scores = penalise(scores, seen, penalty)
    if not stages.noise:
        return scores
    sampled = (temperature > 0)[:, None]
    scores = scores / torch.where(sampled, temperature[:, None], 1.0)
    if stages.filters:
        scores = keep_likely(scores, top_k, tail)
    return scores + gumbel_noise(seeds, positions, token_ids) * sampled


def penalise(scores: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Divide the positive and multiply the negative scores of seen tokens, as RepetitionPenaltyLogitsProcessor.

    scores (rows, vocab), seen (rows, vocab) bool, penalty (rows,).
    """
    penalty = penalty[:, None]
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def keep_likely(scores: Tensor, top_k: Tensor, tail: Tensor) -> Tensor:
    """Set to -inf what top-k, and then top-p, takes away, as TopKLogitsWarper and TopPLogitsWarper; never all.

    scores (rows, vocab); top_k (rows,) int64, vocab where it is off; tail (rows,) 1 - top_p, 0 where it is off.
    """
    ascending, order = scores.sort(dim=-1)
    kth = ascending.gather(-1, scores.size(-1) - top_k[:, None])
    ascending = ascending.masked_fill(ascending < kth, -torch.inf)
    mass = ascending.softmax(dim=-1).cumsum(dim=-1)
    tail = tail[:, None]
    unlikely = (mass <= tail) & (tail > 0)
    unlikely[:, -1] = False
    unlikely |= ascending == -torch.inf
    return scores.masked_fill(unlikely.scatter(-1, order, unlikely), -torch.inf)


def gumbel_noise(seeds: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """(rows, vocab) float32 of standard Gumbel noise, a function of seed, position and token id alone.

    seeds and positions (rows,), token_ids (vocab,): int32. Two keys for each row go into the hash at different depths,
    so that no two rows have the same noise in another order.
    """
    spread = positions * 0x2545F491
    first = _mix(_mix(seeds ^ 0x5851F42D) ^ spread)[:, None]
    second = _mix(_mix(seeds ^ 0x14057B7E) + spread)[:, None]
    bits = _mix(token_ids ^ first, second).bitwise_and_(0x7FFFFFFF)
    # -log(-log(1 - w)): large noise comes from small w, where 31 bits and float32 are fine-grained. At w = 1, where
    # the largest w round to, the noise would be -inf, which could leave a row nothing to choose from.
    w = bits.float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return w.neg_().log1p_().neg_().log_().neg_()


def _mix(x: Tensor, key: Tensor | None = None) -> Tensor:
    """A 32-bit integer hash in int32 arithmetic, which wraps around; constants by Chris Wellons' hash prospector."""
    x = x ^ _shifted(x, 16)
    x *= 0x21F0AAAD
    if key is not None:
        x ^= key
    x ^= _shifted(x, 15)
    x *= 0x735A2D97
    x ^= _shifted(x, 15)
    return x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Unsigned shift to the right: torch's drags the sign along."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)

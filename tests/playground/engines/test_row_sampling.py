"""Choosing row by row: the same numbers as transformers' processors, and noise that is fair and depends on the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from playground.engines.decoding.row_sampling import RowSampling, gumbel_noise, keep_likely, penalise
from playground.types import MAX_SEED, SamplingParams

VOCAB = 50


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(torch.int32)


def noise(seeds: Sequence[int], positions: Sequence[int], vocab: int = VOCAB) -> Tensor:
    return gumbel_noise(int32(*seeds), int32(*positions), torch.arange(vocab, dtype=torch.int32))


def python_noise(seed: int, position: int, token: int) -> float:
    """The same in Python's unbounded integers and float64."""

    def mix(x: int, key: int = 0) -> int:
        x = (x ^ x >> 16) * 0x21F0AAAD & 0xFFFFFFFF ^ key
        x = (x ^ x >> 15) * 0x735A2D97 & 0xFFFFFFFF
        return x ^ x >> 15

    spread = position * 0x2545F491 & 0xFFFFFFFF
    first = mix(mix(seed ^ 0x5851F42D) ^ spread)
    second = mix(mix(seed ^ 0x14057B7E) + spread & 0xFFFFFFFF)
    w = ((mix(token ^ first, second) & 0x7FFFFFFF) + 0.5) / 2**31
    return -math.log(-math.log1p(-w))


@given(st.integers(0, MAX_SEED), st.integers(0, 2**20), st.integers(0, 200_000))
def test_the_noise_is_the_hash_that_it_says(seed: int, position: int, token: int) -> None:
    got = gumbel_noise(int32(seed), int32(position), int32(token)).item()
    assert got == pytest.approx(python_noise(seed, position, token), rel=1e-4, abs=1e-5)


def test_the_noise_of_a_row_does_not_know_the_others() -> None:
    alone = noise([7], [30])
    among = noise([1, 7, 7, MAX_SEED], [30, 30, 31, 0])
    assert torch.equal(among[1], alone[0])
    assert not torch.equal(among[2], alone[0])


def test_no_row_has_the_noise_of_another_in_another_order() -> None:
    """Rows that were permutations of each other would share their largest and their smallest value."""
    keys = [*((seed, 9) for seed in range(1000)), *((5000, position) for position in range(1000))]
    extremes = []
    for some in (keys[:500], keys[500:1000], keys[1000:1500], keys[1500:]):
        values = noise(*zip(*some, strict=True), vocab=16384)
        extremes.append(torch.stack([values.amax(dim=-1), values.amin(dim=-1)], dim=-1))
    assert torch.cat(extremes).unique(dim=0).size(0) == 2000


def test_noise_is_finite_and_reaches_into_the_right_tail() -> None:
    values = noise(range(200), range(200), 100_000)
    assert values.isfinite().all()
    # 20 million draws: the largest is near log(20e6) = 16.8, with a spread of 1.3.
    assert 14 < values.max() < 24


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("vary", ["seed", "position"])
def test_samples_follow_the_softmax(vary: str) -> None:
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0, -0.5, -1.0, -2.0, -2.5])
    draws = 40_000
    seeds, positions = (range(draws), [17] * draws) if vary == "seed" else ([1234] * draws, range(draws))
    chosen = (logits + noise(seeds, positions, 8)).argmax(dim=-1)
    counts = chosen.bincount(minlength=8).float()
    assert chi_square(counts, logits.softmax(-1) * draws) < 24.3  # p = 0.001 with 7 degrees of freedom


@pytest.mark.parametrize("neighbour", [(1, 0), (0, 1), (1, 1)])
def test_neighbouring_seeds_and_positions_are_independent(neighbour: tuple[int, int]) -> None:
    draws = 40_000
    seeds, positions = [n // 200 for n in range(draws)], [n % 200 for n in range(draws)]
    one = noise(seeds, positions, 4).argmax(dim=-1)
    other = noise([s + neighbour[0] for s in seeds], [p + neighbour[1] for p in positions], 4).argmax(dim=-1)
    counts = (one * 4 + other).bincount(minlength=16).float()
    assert chi_square(counts, torch.full((16,), draws / 16)) < 37.7  # p = 0.001 with 15 degrees of freedom


@given(st.floats(0.5, 3), st.integers(0, 1000))
def test_the_penalty_is_transformers_own(penalty: float, seed: int) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(3, VOCAB) * 4
    ids = torch.randint(0, VOCAB, (3, 12))
    seen = torch.zeros(3, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    torch.testing.assert_close(penalise(scores, seen, torch.full((3,), penalty)), expected, rtol=1e-6, atol=0)


@given(st.integers(1, VOCAB + 5), st.floats(0.001, 1), st.integers(0, 1000), st.floats(0.1, 8))
def test_the_kept_sets_are_transformers_own(top_k: int, top_p: float, seed: int, spread: float) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(4, VOCAB) * spread
    expected = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    rows_k = torch.full((4,), min(top_k, VOCAB))
    assert torch.equal(keep_likely(scores, rows_k, torch.full((4,), 1 - top_p)), expected)


def test_rows_filter_for_themselves_and_nothing_leaves_no_choice() -> None:
    scores = torch.randn(5, VOCAB)
    kept = keep_likely(scores, torch.tensor([VOCAB, 1, 3, VOCAB, 1]), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]))
    assert kept.isfinite().sum(dim=-1).tolist() == [VOCAB, 1, 3, 1, 1]
    assert torch.equal(kept.argmax(dim=-1), scores.argmax(dim=-1))
    equal = keep_likely(torch.zeros(1, VOCAB), torch.tensor([VOCAB]), torch.tensor([1 - 1e-9]))
    assert equal.isfinite().any()


def test_a_temperature_next_to_nothing_is_greedy() -> None:
    assert RowSampling.of(SamplingParams(temperature=1e-30, top_k=3, seed=5), 0) == RowSampling()

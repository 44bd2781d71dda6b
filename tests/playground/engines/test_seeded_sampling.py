"""Sampling in the batches of transformers' manager: each row as if it were alone, tokens counted where they are fed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from playground.engines.decoding.row_sampling import RowSampling, gumbel_noise
from playground.engines.decoding.seeded_sampling import SeededSampling
from playground.types import MAX_SEED, SamplingParams

VOCAB = 50
CPU = torch.device("cpu")


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(torch.int32)


def noise(seeds: Sequence[int], positions: Sequence[int], vocab: int = VOCAB) -> Tensor:
    return gumbel_noise(int32(*seeds), int32(*positions), torch.arange(vocab, dtype=torch.int32))


def request_state(row: RowSampling | None, prompt: Sequence[int], fed: int, *, new: bool = True) -> FutureRequestState:
    """A request as a batch under preparation sees it: `fed` tokens are in, this batch's included."""
    kwargs = {} if row is None else {"sampling": row}
    state = RequestState("r", list(prompt), logit_processor_kwargs=kwargs)
    state._status = RequestStatus.DECODING
    state.position_offset = fed
    return FutureRequestState(state, new, {}, 1)


class Steps:
    """Steps of a batch as the manager makes them: the storage of the arguments is filled once and then reused."""

    def __init__(self, slots: int = 2) -> None:
        self.sampling = SeededSampling(VOCAB, slots, CPU)
        self._storage = torch.full((self.sampling.tensors_required, 12), -77, dtype=torch.int32)
        self.sampling.fill_defaults(self._storage)

    def step(self, batch: list[FutureRequestState], fed: Sequence[int], scores: Tensor) -> Tensor:
        """Prepare, then score. `fed` are the tokens at the positions that predict."""
        self.sampling.prepare_tensor_args(batch, self._storage)
        return self.sampling(int32(*fed), scores, self._storage[:, : scores.size(0)])


def lowered(scores: Tensor) -> list[int]:
    """Tokens of the first row that a penalty has lowered, where all scores were 1."""
    return (scores[0] < 1).nonzero().flatten().tolist()


@pytest.mark.parametrize("static", [False, True])
def test_a_mixed_batch_is_each_request_by_itself(static: bool) -> None:
    params = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.5, top_p=1, seed=3),
        SamplingParams(temperature=1.5, top_k=4, top_p=0.6, repetition_penalty=1.7, seed=MAX_SEED),
        SamplingParams(temperature=0, repetition_penalty=0.6),
    ]
    prompts = [[1, 2], [3], [4, 5, 6], [7, 8, 9, 9]]
    scores = torch.randn(len(params), VOCAB, generator=torch.Generator().manual_seed(0)) * 3
    together = Steps(slots=8)
    together.sampling.static = static
    batch = [
        request_state(RowSampling.of(p, n), ids, len(ids))
        for n, (p, ids) in enumerate(zip(params, prompts, strict=True))
    ]
    got = together.step(batch, [ids[-1] for ids in prompts], scores)
    for n, (p, ids) in enumerate(zip(params, prompts, strict=True)):
        processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(p.repetition_penalty)])
        expected = processors(torch.tensor([ids]), scores[n : n + 1])
        if p.temperature:
            warpers = [TemperatureLogitsWarper(p.temperature)]
            warpers += [TopKLogitsWarper(p.top_k)] if p.top_k else []
            warpers += [TopPLogitsWarper(p.top_p)] if p.top_p < 1 else []
            expected = LogitsProcessorList(warpers)(torch.tensor([ids]), expected) + noise([p.seed], [len(ids)])
        torch.testing.assert_close(got[n : n + 1], expected, rtol=1e-5, atol=1e-5)


def test_rows_that_predict_nothing_leave_the_others_alone() -> None:
    """Behind the requests that get a token come rows of prompts read in part, and padding, with any token."""
    steps = Steps()
    one = request_state(RowSampling(repetition_penalty=2.0, slot=0), [5], 1)
    other = request_state(RowSampling(repetition_penalty=2.0, slot=1), [6], 1)
    part = request_state(RowSampling(repetition_penalty=2.0, slot=1), [7] * 9, 4, new=False)
    scores = torch.ones(4, VOCAB)
    steps.step([one, other], [5, 6], scores[:2])
    got = steps.step([one, part], [8, 11, 11, 11], scores)
    assert lowered(got) == [5, 8]
    assert (got[1:] == 1).all()
    assert lowered(steps.step([other], [9], scores[:1])) == [6, 9]


def test_the_penalty_follows_the_tokens_fed_even_where_the_host_does_not_know_them_yet() -> None:
    """With asynchronous batching `generated_tokens` is a step behind: only the device knows the token just fed."""
    steps = Steps()
    request = request_state(RowSampling(repetition_penalty=2.0, slot=1), [1, 2], 2)
    seen = []
    for fed in (2, 30, 31):
        seen.append(lowered(steps.step([request], [fed], torch.ones(1, VOCAB))))
        request.state.position_offset += 1
    assert seen == [[1, 2], [1, 2, 30], [1, 2, 30, 31]]


def test_a_slot_forgets_its_last_owner_and_a_restart_remembers() -> None:
    steps = Steps(slots=1)
    row = RowSampling(repetition_penalty=2.0, slot=0)
    scores = torch.ones(1, VOCAB)
    steps.step([request_state(row, [1, 2], 2)], [2], scores)
    assert lowered(steps.step([request_state(row, [3], 1)], [3], scores)) == [3]
    restarted = request_state(row, [3, 9], 2)  # a prompt of one token, and one written before its place was taken
    assert lowered(steps.step([restarted], [9], scores)) == [3, 9]


def test_the_position_is_the_tokens_fed_not_those_that_came_back() -> None:
    """With asynchronous batching the list of generated tokens lags behind by one; the noise must not."""
    steps = Steps()
    row = RowSampling(seed=8, temperature=1.0)
    lagging, current = request_state(row, [1, 2, 3], 5), request_state(row, [1, 2, 3], 5)
    lagging.state.generated_tokens, current.state.generated_tokens = [4], [4, 5]
    scores = torch.zeros(1, VOCAB)
    assert torch.equal(steps.step([lagging], [5], scores), steps.step([current], [5], scores))
    assert torch.equal(steps.step([current], [5], scores), noise([8], [5]))


def test_stages_that_no_row_asks_for_change_nothing() -> None:
    steps = Steps()
    scores = torch.randn(1, VOCAB)
    greedy = request_state(RowSampling.of(SamplingParams(temperature=0), 0), [1], 1)
    assert steps.step([greedy], [1], scores) is scores
    assert torch.equal(steps.step([request_state(None, [1], 1)], [1], scores), scores)

"""`row_sampling` in the form that transformers' continuous batching (5.23) calls, in the generation thread.

Fills the argument storage of each batch and keeps, on the device, which tokens each request with a repetition penalty
has seen. Made by `BatchedEngine`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState
from transformers.generation.continuous_batching.utils import stream_context

from playground.engines.decoding.row_sampling import GREEDY, RowSampling, Stages, choose, columns


class SeededSampling(ContinuousBatchingLogitsProcessorList):
    """Repetition penalty, temperature, top-k, top-p and noise, row by row, in the order of `generate`.

    Args:
        vocab_size: width of the logits.
        slots: how many requests with a repetition penalty there may be at a time.
        device: where the logits are.

    Attributes:
        static: set where steps are recorded once and replayed (CUDA graphs) or compiled: then all stages run where any
            row asks for one, so that there are two kinds of steps. Else a stage that no row asks for is left out.
        every_stage: all stages run, asked for or not; set while such steps are recorded beforehand.
        stages: those of the batch that was prepared last.
        stream: the CUDA stream that computes the batches, None for the current one.
    """

    def __init__(self, vocab_size: int, slots: int, device: torch.device) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = 7
        self.do_processing = True
        self.supported_keys = {"sampling": RowSampling}
        self.static = False
        self.every_stage = False
        self.stages = Stages()
        self.stream: torch.cuda.Stream | None = None
        self._vocab_size = vocab_size
        self._token_ids = torch.arange(vocab_size, dtype=torch.int32, device=device)
        # The last row belongs to no one: rows without a penalty, and those that only fill the batch, mark theirs there.
        self._seen = torch.zeros(slots + 1, vocab_size, dtype=torch.bool, device=device)
        self._true = torch.ones((), dtype=torch.bool, device=device)
        self._in_slot: dict[int, RequestState] = {}
        self._padding = self._columns([GREEDY], [0])

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.copy_(self._padding)

    def prepare_tensor_args(self, requests_in_batch: list[FutureRequestState], arg_storage: Tensor) -> Tensor:
        """Fill the (7, any) int32 storage with the batch's parameters, one column for each row of logits."""
        states = [request.state for request in requests_in_batch if request.has_new_token]
        rows: list[RowSampling] = [state.logit_processor_kwargs.get("sampling", GREEDY) for state in states]
        # The token to be chosen stands right behind those fed so far. `position_offset` counts them up to this batch
        # and is moved when a batch is prepared; the list of generated tokens is moved when one comes back, which with
        # asynchronous batching is one step later. Shared prefixes and restarted requests are counted in as well.
        positions = [state.position_offset for state in states]
        for state, row in zip(states, rows, strict=True):
            if row.slot >= 0 and self._in_slot.get(row.slot) is not state:
                self._mark_prompt(state, row.slot)
        # Behind them come rows that predict nothing (a prompt read in part, padding of a recorded step).
        arg_storage[:, len(rows) :] = self._padding.to(arg_storage.device)
        if rows:
            arg_storage[:, : len(rows)] = self._columns(rows, positions).to(arg_storage.device)
        asked = Stages.of(rows)
        full = self.every_stage or (self.static and asked != Stages())
        self.stages = Stages.all() if full else asked
        return arg_storage

    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        """Scores whose argmax is the next token.

        Args:
            input_ids: (rows,) the tokens just fed, those of the step before carried over.
            scores: (rows, vocab_size) float32 logits.
            logits_processor_args: (7, rows) int32, from `prepare_tensor_args`.
        """
        args = logits_processor_args[:, : scores.size(0)]
        seen = None
        if self.stages.penalty:
            slots = args[6].long()
            self._seen.index_put_((slots, input_ids.long()), self._true)
            seen = self._seen[slots]
        return choose(scores, args[:6], self.stages, seen, self._token_ids)

    def _columns(self, rows: list[RowSampling], positions: list[int]) -> Tensor:
        """(7, rows) int32: the columns of `row_sampling.columns`, and the slot."""
        last = self._seen.size(0) - 1
        slots = [row.slot if row.slot >= 0 else last for row in rows]
        return torch.cat([columns(rows, positions, self._vocab_size), torch.tensor([slots], dtype=torch.int32)])

    def _mark_prompt(self, state: RequestState, slot: int) -> None:
        """A request has come into this slot, or was restarted. Tokens that it writes are marked when they are fed."""
        self._in_slot[slot] = state
        # In the stream of the batches: the slot's last owner may still be in the batch that runs now.
        with stream_context(self.stream):
            known = torch.tensor(state.initial_tokens + state.generated_tokens, device=self._seen.device)
            self._seen[slot].zero_().index_fill_(0, known, True)

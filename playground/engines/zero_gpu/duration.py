"""How long to ask for the GPU: arithmetic over what is asked and what the models weigh.

Asked for too little, the answer is cut off; too much waits longer in ZeroGPU's queue, and needs that much of the
visitor's quota to be left. Knows no engine. Called for every turn, before its grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from playground.engines.zero_gpu.turn import Turn
from playground.types import GenerationRequest

SHORTEST_S = 15
"""Below it a grant would end before slow disks have brought the weights."""

LONGEST_S = 120
"""Above it ZeroGPU may refuse. What it allows is written down nowhere; its own examples end here."""

START_S = 5.0
"""Fork, CUDA's start and the engines' caches. An estimate, as are the next four: see docs/zero-gpu.md."""

DISK_BYTES_S = 2.0e9
"""From the Space's disk to the GPU, where `spaces` puts all models' weights at the start of a new worker."""

READ_TOKENS_S = 2000
"""Tokens of a prompt; a card does several times as many, for one prompt at a time."""

GPU_BYTES_S = 0.9e12
"""Half of what an RTX PRO 6000 reads a second (1.79 TB): a token costs one reading of all weights."""

STEP_S = 0.015
"""What a step takes besides, without recorded CUDA graphs: it is Python that launches hundreds of kernels."""


@dataclass(frozen=True, slots=True)
class Costs:
    """weights: bytes of each model on the Space, by its id. contexts: its longest context, in tokens."""

    weights: Mapping[str, int]
    contexts: Mapping[str, int]
    longest_s: int = LONGEST_S

    def __call__(self, turn: Turn) -> int:
        """Whole seconds to ask for."""
        requests = [one.request for one in turn.asked]
        begin = START_S + sum(self.weights.values()) / DISK_BYTES_S
        reading = sum(self._prompt_tokens(request) for request in requests) / READ_TOKENS_S
        longest = max((self._answer_tokens(request) for request in requests), default=0)
        seconds = begin + reading + longest * self._step_s(requests)
        return min(max(SHORTEST_S, round(seconds)), self.longest_s)

    def _step_s(self, requests: list[GenerationRequest]) -> float:
        """One token for all: engines take turns on the GPU, while questions to the same one share its step."""
        engines = {(request.model_id, request.adapter) for request in requests}
        return sum(self.weights[model_id] / GPU_BYTES_S + STEP_S for model_id, _ in engines)

    def _prompt_tokens(self, request: GenerationRequest) -> int:
        """At most one for each byte of its text, and never more than the context."""
        size = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        return min(size, self.contexts[request.model_id])

    def _answer_tokens(self, request: GenerationRequest) -> int:
        return min(request.sampling.max_new_tokens, self.contexts[request.model_id])

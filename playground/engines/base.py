"""What every engine offers, in whatever process or machine it runs.

The pool and the UI know engines by this protocol alone. Knows no torch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from playground.adapters.facts import CheckedAdapter
from playground.types import DeviceUse, GenerationChunk, GenerationRequest, ScoredPiece


class Engine(Protocol):
    """One running model."""

    model_id: str

    @property
    def alive(self) -> bool:
        """False once it ended by itself, such as a process that was killed: whoever needs it starts another."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Answer a request in chunks, of which the last alone has a finish reason.

        Closing the generator, or cancelling the task that waits for it, ends the request and frees what it holds.
        Several streams may run at a time, on several event loops.

        Raises:
            PromptError: the messages cannot become a prompt of this model, or leave no room for an answer.
            SamplingError: the engine cannot honour one of the sampling parameters.
            EngineError: it could not go on; the subclasses say why.
        """
        ...

    async def score(self, request: GenerationRequest, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """How probable each token of an answer was, and what else could have come in its place.

        One answer at a time, while others are being written. Cancelling the task that waits for it gives it up.

        Args:
            request: what was answered.
            token_ids: the answer, as its chunks have it.

        Returns:
            All tokens in pieces that can be read. Their texts joined are the answer's text, with the end token's
            spelling, and with what a stop string cut off.

        Raises:
            PromptError: as `stream`.
            EngineError: it cannot tell, or the tokens are not this model's; the subclasses say why.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """End the answer to a request: its stream ends with the finish reason "abort". Unknown ids are ignored."""
        ...

    async def close(self) -> None:
        """Stop for good; running streams raise EngineClosedError. May be repeated."""
        ...

    def attach(self, adapter: CheckedAdapter, scale: float, kv_tokens: int) -> Engine:
        """An engine that answers as this model with an adapter, from the same weights; blocks until it serves.

        May be called from any thread, while this engine answers. It ends with its own `close`, or with this one's.

        Args:
            adapter: inspected for this model.
            scale: multiplies its effect, 0 to 2.
            kv_tokens: tokens of context that its KV cache holds over all its requests.

        Raises:
            AdapterError: it is no longer what was inspected, or this engine takes none.
            OutOfMemoryError: a device has no room for it.
            EngineClosedError: this engine was closed.
        """
        ...

    def memory(self) -> tuple[DeviceUse, ...]:
        """What it takes of each device it stands on, as of now; cheap, from any thread."""
        ...

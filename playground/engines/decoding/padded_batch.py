"""Requests side by side in one padded batch: one step of the model for all, rows that come and go.

Rows end in the same column and are padded on the left; attention mask and positions say so to the model. Runs in the
token loop's thread. Knows token ids, no text, and nothing of queues; `ShardedLoop` decides who is in which batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from playground.engines.decoding.padded_cache import PaddedLayer
from playground.engines.decoding.row_sampling import RowSampling, Stages, choose, columns


@dataclass(slots=True, eq=False)
class Row:
    """One request as a batch knows it.

    most: tokens that may be generated.
    gone: finished, cancelled or failed; it leaves before the next step.
    seen: (vocab,) bool, its tokens so far; kept where it has a repetition penalty.
    """

    prompt: Sequence[int]
    most: int
    sampling: RowSampling
    gone: bool = False
    generated: list[int] = field(default_factory=list)
    seen: Tensor | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)

    @property
    def final(self) -> int:
        """Its length when it has written all that it may."""
        return len(self.prompt) + self.most


R = TypeVar("R", bound=Row)


def padded_tokens(rows: Sequence[Row]) -> int:
    """Tokens of cache that these rows take side by side, at most, until the last of them is done."""
    return len(rows) * max((row.final for row in rows), default=0)


class PaddedBatch(Generic[R]):
    """Rows whose prompts are read, in pieces, and then written on, a token a step.

    Args:
        model: may be spread over several devices.
        device: where token ids go in and logits come out.
        rows: at least one.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device, rows: Sequence[R]) -> None:
        self.rows = list(rows)
        self.columns = 0
        self.unread = max(len(row.prompt) for row in rows)
        self._model = model
        self._device = device
        self._layers = [PaddedLayer(self._room) for _ in range(model.config.get_text_config().num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))

    @property
    def _room(self) -> int:
        return max(row.final for row in self.rows)

    def read(self, count: int) -> Tensor:
        """Feed the next columns of the prompts; the logits behind them, as of `write`."""
        width = self.columns + self.unread
        pads = [width - len(row.prompt) for row in self.rows]
        prompts = [[0] * pad + list(row.prompt) for pad, row in zip(pads, self.rows, strict=True)]
        logits = self._feed([ids[self.columns : self.columns + count] for ids in prompts], pads)
        self.unread -= count
        return logits

    def write(self) -> Tensor:
        """Feed the last token of each row; (rows, vocab) float32 logits behind them.

        After an exception, here or in `choose`, `rewind` undoes what was done.
        """
        pads = [self.columns + 1 - row.length for row in self.rows]
        return self._feed([[row.generated[-1]] for row in self.rows], pads)

    def _feed(self, ids: list[list[int]], pads: list[int]) -> Tensor:
        end = self.columns + len(ids[0])
        places = torch.arange(end, device=self._device)[None] - torch.tensor(pads, device=self._device)[:, None]
        output = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=(places >= 0).long(),
            position_ids=places[:, self.columns :].clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.columns = end
        return output.logits[:, -1].to(self._device, torch.float32)

    def choose(self, logits: Tensor) -> list[int]:
        """Each row's next token."""
        samplings = [row.sampling for row in self.rows]
        stages = Stages.of(samplings)
        vocab_size = logits.shape[-1]
        arguments = columns(samplings, [row.length for row in self.rows], vocab_size).to(self._device)
        seen = self._seen(vocab_size) if stages.penalty else None
        token_ids = torch.arange(vocab_size, dtype=torch.int32, device=self._device)
        return choose(logits, arguments, stages, seen, token_ids).argmax(dim=-1).tolist()

    def _seen(self, vocab_size: int) -> Tensor:
        none = torch.zeros(vocab_size, dtype=torch.bool, device=self._device)
        for row in self.rows:
            if row.seen is None and row.sampling.repetition_penalty != 1:
                known = torch.tensor([*row.prompt, *row.generated], device=self._device)
                row.seen = none.index_fill(0, known, True)
        return torch.stack([none if row.seen is None else row.seen for row in self.rows])

    def add(self, tokens: Sequence[int]) -> None:
        """Take each row's next token."""
        for row, token in zip(self.rows, tokens, strict=True):
            row.generated.append(token)
            if row.seen is not None:
                row.seen[token] = True

    def rewind(self) -> None:
        """Forget what a `write` that failed has left in some of the layers; takes no memory."""
        self.columns = max(row.length for row in self.rows) - 1
        for layer in self._layers:
            layer.shorten(self.columns)

    def drop_gone(self) -> None:
        """Let rows leave that are gone, and their cache with them. Needs memory for what stays of one layer.

        While prompts are unread, all rows leave or none: prompts that take more than one step are read alone.
        """
        stay = [number for number, row in enumerate(self.rows) if not row.gone]
        if len(stay) == len(self.rows):
            return
        self.rows = [self.rows[number] for number in stay]
        if self.rows:
            self.columns = max(row.length for row in self.rows) - 1
            for layer in self._layers:
                layer.gather([(layer, stay)], self.columns, self._room)

    def join(self, others: PaddedBatch[R]) -> None:
        """Take in the rows of another batch, all of whose prompts are read; the other one is used up.

        Needs memory for one layer of both. After an exception, `part` undoes it.
        """
        columns = max(self.columns, others.columns)
        room = max(self._room, others._room)
        for mine, theirs in zip(self._layers, others._layers, strict=True):
            parts = [(mine, range(len(self.rows))), (theirs, range(len(others.rows)))]
            mine.gather(parts, columns, room)
            theirs.reset()
        self.rows += others.rows
        self.columns = columns

    def part(self) -> None:
        """Be without the rows that an unfinished `join` has brought into some of the layers."""
        mine = range(len(self.rows))
        for layer in self._layers:
            if layer.rows != len(mine):
                layer.gather([(layer, mine)], self.columns, self._room)

    def cache_bytes(self) -> Counter[str]:
        """What its contexts take of each device, padding included. From any thread."""
        total: Counter[str] = Counter()
        for layer in self._layers:
            for states in (layer.keys, layer.values):
                if states is not None:
                    total[str(states.device)] += states.nbytes
        return total

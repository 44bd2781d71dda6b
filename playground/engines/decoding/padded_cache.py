"""The KV cache of a padded batch: rows of different lengths that end in the same column, each layer on its device.

Layers for transformers' Cache (5.23) that have all their room from the start, so that a token costs one column and not
a copy of those before it, and whose rows can be put together anew. Knows keys and values only; `PaddedBatch` uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PaddedLayer(DynamicLayer):
    """`keys` and `values`, (rows, heads, columns, head_dim), are views of buffers that have `room` columns."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, ...] = ()

    @property
    def rows(self) -> int:
        return self._buffers[0].shape[0] if self._buffers else 0

    @property
    def states(self) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer that has some."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append columns, on the device where they are; transformers' attention layers call it."""
        if not self._buffers:
            self.lazy_initialization(key_states, value_states)
            states = (key_states, value_states)
            self._buffers = tuple(x.new_empty(*x.shape[:2], self.room, x.shape[3]) for x in states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        for buffer, fresh in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = fresh
        self.shorten(end)
        return self.states

    def reset(self) -> None:
        """Hold nothing."""
        self._buffers = ()
        super().reset()

    def shorten(self, columns: int) -> None:
        """See only the first columns; takes no memory."""
        if self._buffers:
            self.keys, self.values = (buffer[:, :, :columns] for buffer in self._buffers)

    def gather(self, parts: Sequence[tuple[PaddedLayer, Sequence[int]]], columns: int, room: int) -> None:
        """Hold these rows of these layers, one below the other, each ending in the last of `columns`.

        Where there is no memory for the new buffers, nothing has changed.
        """
        keys = _gathered([(layer.states[0], rows) for layer, rows in parts], columns, room)
        values = _gathered([(layer.states[1], rows) for layer, rows in parts], columns, room)
        self.room, self._buffers = room, (keys, values)
        self.shorten(columns)


def _gathered(parts: Sequence[tuple[Tensor, Sequence[int]]], columns: int, room: int) -> Tensor:
    like = parts[0][0]
    fresh = like.new_empty(sum(len(rows) for _, rows in parts), like.shape[1], room, like.shape[3])
    top = 0
    for states, rows in parts:
        width = min(states.shape[-2], columns)
        place = fresh[top : top + len(rows), :, :columns]
        # These columns are masked, but what is no number there would show through a weight of zero.
        place[:, :, : columns - width] = 0
        newest = states[:, :, states.shape[-2] - width :]
        place[:, :, columns - width :] = newest if len(rows) == len(newest) else newest[list(rows)]
        top += len(rows)
    return fresh

"""Text to token ids, with a say in which control tokens a text may hold.

Works on copies of a tokenizer's backend, for the tokenizer's own settings may change under whoever else uses it, from
other threads. Knows texts and places in them, no messages. Called by the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_SETTINGS = {"truncation": None, "padding": None}


@dataclass(frozen=True, slots=True)
class Control:
    """A control token in a text: where it is spelled, and which token it is."""

    start: int
    end: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as tokens: for each its id, its characters (start, end), and whether the tokenizer added it.

    controls: the control tokens among those that stand in the text, by number of the token.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    added: tuple[bool, ...]
    controls: dict[int, Control]

    def begins(self) -> list[int]:
        """Where each token begins in the text; never before the one ahead of it."""
        starts = [start for start, _ in self.offsets]
        for number, control in self.controls.items():
            starts[number] = control.start
        return list(accumulate(starts, max))


class TextEncoder:
    """One tokenizer's way from text to ids. May be used from several threads at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        source: Tokenizer = tokenizer.backend_tokenizer
        state = {**json.loads(source.to_str()), **NO_SETTINGS}
        _keep_spaces(state)
        self._backend = Tokenizer.from_str(json.dumps(state))
        self._backend.encode_special_tokens = tokenizer.split_special_tokens
        self.control = {
            token_id: token.content
            for token_id, token in source.get_added_tokens_decoder().items()
            if token.special or token.content.strip()
        }

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoded:
        """As the tokenizer itself does."""
        encoding = self._backend.encode(text, add_special_tokens=add_special_tokens)
        ids, offsets = tuple(encoding.ids), tuple(encoding.offsets)
        added = tuple(map(bool, encoding.special_tokens_mask))
        return Encoded(ids, offsets, added, dict(self._controls(text, ids, offsets, added)))

    def _controls(
        self, text: str, ids: Iterable[int], offsets: Iterable[tuple[int, int]], added: Iterable[bool]
    ) -> Iterator[tuple[int, Control]]:
        for number, (token_id, (start, end), is_added) in enumerate(zip(ids, offsets, added, strict=True)):
            if token_id in self.control and not is_added:
                spelling = self.control[token_id]  # a token may also take the white space beside it
                place = text.find(spelling, start, end)
                yield (
                    number,
                    Control(start, end, token_id) if place < 0 else Control(place, place + len(spelling), token_id),
                )


def _keep_spaces(state: Any) -> None:
    """Let the offsets of byte-level tokens hold the spaces that are part of them; changes no id."""
    if isinstance(state, dict):
        if "trim_offsets" in state:
            state["trim_offsets"] = False
        for name in ("pre_tokenizer", "pretokenizers", "post_processor", "processors"):
            _keep_spaces(state.get(name))
    elif isinstance(state, list):
        for each in state:
            _keep_spaces(each)

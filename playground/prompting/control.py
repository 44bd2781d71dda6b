"""Text to token ids, with a say in which control tokens a text may hold.

Works on copies of a tokenizer's backend, for the tokenizer's own settings may change under whoever else uses it, from
other threads. Knows texts and places in them, no messages. Called by the encoder.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Encoding, Tokenizer

from playground.prompting.guard import Guard

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_SETTINGS = {"truncation": None, "padding": None}
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte, as the vocabulary spells it for characters that it does not have: never an instruction."""


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

    def begins(self, text: str) -> list[int]:
        """Where each token's first letter stands in the text; never before that of the one ahead.

        White space in front of a letter does not count: a word's token takes the space before it along, which is often
        the template's.
        """
        starts = [_first_letter(text, start, end) for start, end in self.offsets]
        for number, control in self.controls.items():
            starts[number] = control.start
        return list(accumulate(starts, max))


class TextEncoder:
    """One tokenizer's way from text to ids. May be used from several threads at once.

    control: the spelling of each control token, by id: of all special tokens, and of those others which were added to
        the vocabulary and are not just white space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> None:
        """Args: add_special_tokens: whether the tokenizer adds its own to what it encodes."""
        state = {**json.loads(tokenizer.backend_tokenizer.to_str()), **NO_SETTINGS}
        _keep_spaces(state)
        self._backend = Tokenizer.from_str(json.dumps(state))
        self._backend.encode_special_tokens = tokenizer.split_special_tokens
        self.control = _control_tokens(self._backend, has_bytes=state["model"].get("byte_fallback", False))
        self._unknown = _unknown_id(state["model"])
        self._add = add_special_tokens
        self._guard: Guard | None = None
        self._building = Lock()

    def encode(self, text: str) -> Encoded:
        """As the tokenizer itself does: a control token that is spelled out becomes one, whoever wrote it."""
        encoding = self._backend.encode(text, add_special_tokens=self._add)
        encoded = _encoded(encoding, encoding.offsets)
        for number, token_id in enumerate(encoded.ids):
            if token_id in self.control and not encoded.added[number]:
                start, end = encoded.offsets[number]  # a token may also take the white space beside it
                spelling = self.control[token_id]
                place = text.find(spelling, start, end)
                if place >= 0:
                    encoded.controls[number] = Control(place, place + len(spelling), token_id)
                elif token_id != self._unknown:  # that one stands for letters too
                    encoded.controls[number] = Control(start, end, token_id)
        return encoded

    def encode_guarded(self, text: str, written: Sequence[Control]) -> Encoded:
        """With control tokens only where they are `written`; all else is text, whatever it spells.

        Raises ValueError where the tokenizer does not allow it.
        """
        places = [(control.start, control.end, control.token_id) for control in written]
        encoding, offsets = self._guarded().encode(text, places, add_special_tokens=self._add)
        encoded = _encoded(encoding, offsets)
        awaited = deque(written)
        for number, token_id in enumerate(encoded.ids):
            if token_id not in self.control or encoded.added[number]:
                continue
            start, end = encoded.offsets[number]
            if awaited and start <= awaited[0].start and awaited[0].end <= end and token_id == awaited[0].token_id:
                encoded.controls[number] = awaited.popleft()
            elif token_id != self._unknown:
                raise ValueError("its tokenizer makes it of plain text")
        if awaited:
            raise ValueError("its tokenizer confuses it with the template's own")
        return encoded

    def plain_ids(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Ids and offsets of a text alone, without control tokens, whatever it spells."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        offsets = encoding.offsets
        if self.control.keys() & encoding.ids:
            encoding, offsets = self._guarded().encode(text, (), add_special_tokens=False)
        return tuple(encoding.ids), tuple(offsets)

    def _guarded(self) -> Guard:
        with self._building:  # takes a second for a large vocabulary
            if self._guard is None:
                self._guard = Guard(self._backend, self.control)
            return self._guard


def _first_letter(text: str, start: int, end: int) -> int:
    """`start` where there is none."""
    place = start
    while place < end and text[place].isspace():
        place += 1
    return place if place < end else start


def _encoded(encoding: Encoding, offsets: Iterable[tuple[int, int]]) -> Encoded:
    return Encoded(tuple(encoding.ids), tuple(offsets), tuple(map(bool, encoding.special_tokens_mask)), {})


def _control_tokens(backend: Tokenizer, *, has_bytes: bool) -> dict[int, str]:
    return {
        token_id: token.content
        for token_id, token in backend.get_added_tokens_decoder().items()
        if (token.special or token.content.strip()) and not (has_bytes and BYTE.fullmatch(token.content))
    }


def _unknown_id(model: dict[str, Any]) -> int | None:
    """The token that stands for what the vocabulary does not have."""
    if "unk_id" in model:
        return cast(int | None, model["unk_id"])
    return cast(int | None, model["vocab"].get(model.get("unk_token")))


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

"""Text to token ids with a tokenizer written in Python, which does not tell which characters a token stands for.

The control tokens are found by their spelling, and what is between two of them has one place. Called by the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from playground.prompting.control import Control, Encoded, TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SlowTextEncoder(TextEncoder):
    """As `TextEncoder`, but it cannot keep a text from spelling control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._add = add_special_tokens
        self.control = {
            token_id: token.content
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special or token.content.strip() or token_id in tokenizer.all_special_ids
        }
        longest_first = sorted(self.control.values(), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def encode(self, text: str) -> Encoded:
        """See `TextEncoder.encode`."""
        inner, ids = self._ids(text, add_special_tokens=False), self._ids(text, add_special_tokens=self._add)
        ahead = next((n for n in range(len(ids) - len(inner) + 1) if ids[n : n + len(inner)] == inner), 0)
        behind = len(ids) - len(inner) - ahead
        controls = dict(self._controls(text, inner))
        offsets = _between(controls, len(text), len(inner))
        return Encoded(
            tuple(ids),
            ((0, 0),) * ahead + tuple(offsets) + ((0, 0),) * behind,
            (True,) * ahead + (False,) * len(inner) + (True,) * behind,
            {number + ahead: control for number, control in controls.items()},
        )

    def encode_guarded(self, text: str, written: Sequence[Control]) -> Encoded:
        """Raises ValueError."""
        raise ValueError("its tokenizer reads it as one wherever it stands")

    def plain_ids(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """See `TextEncoder.plain_ids`; here a control token that the text spells is one."""
        ids = self._ids(text, add_special_tokens=False)
        return tuple(ids), ((0, len(text)),) * len(ids)

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: Any = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return list(ids)

    def _controls(self, text: str, ids: Sequence[int]) -> Iterator[tuple[int, Control]]:
        """Those of the text by number of the token, which come in the same order."""
        numbers = iter([number for number, token_id in enumerate(ids) if token_id in self.control])
        for match in self._spelled.finditer(text):
            number = next((number for number in numbers if self.control[ids[number]] == match[0]), None)
            if number is None:
                return
            yield number, Control(match.start(), match.end(), ids[number])


def _between(controls: dict[int, Control], length: int, count: int) -> Iterator[tuple[int, int]]:
    """The place of each token: its own for a control token, all from the last one to the next one for others."""
    following = [*controls.items(), (count, Control(length, length, -1))]
    start, index = 0, 0
    for number in range(count):
        next_number, control = following[index]
        if number == next_number:
            yield control.start, control.end
            start, index = control.end, index + 1
        else:
            yield start, control.start

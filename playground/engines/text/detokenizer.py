"""Token ids to text, token by token, at a cost that does not grow with the answer.

A token is decoded together with the few before it, because a tokenizer's text for a token depends on what precedes it
(leading spaces, characters split into bytes). Any tokenizer will do; nothing of its kind is assumed. Knows no model;
an engine's answer starts here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"

HELD_TOKENS = 32
"""Tokens in a row that may end inside a character before it is taken for broken and shown as U+FFFD."""


class Detokenizer:
    """Give it ids with `push`, end with `flush`.

    What comes out, joined, equals `tokenizer.decode(ids, skip_special_tokens=False)`, with one exception: in a run of
    byte-fallback tokens that is no UTF-8, decode shows U+FFFD for every byte of the run, here the characters before
    the broken byte stay what they were.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # `_context`: tokens whose text is out, from the start of a character to the end of one.
        self._context: list[int] = []
        self._context_text = ""
        # `_pending`: the tokens after them; `_shown` of their text is out, `_held` is not.
        self._pending: list[int] = []
        self._shown = 0
        self._held = ""

    def push(self, ids: Iterable[int]) -> str:
        """More tokens in; the text that they settle comes out, without a character of which bytes are missing."""
        return "".join([self._push(token) for token in ids])

    @property
    def is_settled(self) -> bool:
        """Whether no character is begun of which bytes are missing."""
        return not self._held

    def flush(self, *, keep_broken: bool) -> str:
        """The answer is over. A last character of which bytes are missing is shown as U+FFFD or left out."""
        held, self._held = self._held, ""
        return held if keep_broken else ""

    def _push(self, token: int) -> str:
        self._pending.append(token)
        text = self._text_of_pending()
        whole = text.rstrip(REPLACEMENT)
        overdue = len(self._pending) > HELD_TOKENS
        if not text:  # out of the vocabulary, or a leading space that the tokenizer drops: no context for the next
            if overdue:
                self._pending = []
            return ""
        if text == whole or overdue:
            fresh = text[self._shown :]
            self._settle()
            return fresh
        fresh = whole[self._shown :]
        self._shown += len(fresh)
        self._held = text[self._shown :]
        return fresh

    def _text_of_pending(self) -> str:
        text = self._decode(self._context + self._pending)
        if text.startswith(self._context_text):
            return text[len(self._context_text) :]
        return self._decode(self._pending)  # a broken byte took the context's bytes with it

    def _settle(self) -> None:
        self._context, self._pending = self._pending, []
        self._context_text = self._decode(self._context)
        self._shown, self._held = 0, ""

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast(str, text)

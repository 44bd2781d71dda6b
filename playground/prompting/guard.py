"""A tokenizer under which no text that people write becomes a control token.

The same backend, but every control token is spelled with a secret. Knows the JSON of a backend and nothing of prompts.
Called by `control`.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

SECRET_LETTERS = 32


class Guard:
    """Encodes a text in which control tokens stand only where they are said to.

    Ids are those of the tokenizer, and so are the offsets, which are places in the text as it was given.
    """

    def __init__(self, backend: Tokenizer, control: Mapping[int, str]) -> None:
        """`control` spells each control token, by its id. Raises ValueError where the tokenizer knows no other."""
        self._spelling = {token_id: _secret(spelling) for token_id, spelling in control.items()}
        state = json.loads(backend.to_str())
        _respell(state, {spelling: self._spelling[token_id] for token_id, spelling in control.items()})
        self._backend = Tokenizer.from_str(json.dumps(state))
        self._backend.encode_special_tokens = backend.encode_special_tokens
        if any(self._backend.token_to_id(secret) != token_id for token_id, secret in self._spelling.items()):
            raise ValueError("its tokenizer knows them by their spelling alone")

    def encode(
        self, text: str, written: Sequence[tuple[int, int, int]], *, add_special_tokens: bool
    ) -> tuple[Encoding, list[tuple[int, int]]]:
        """Tokens and their offsets; `written` are the control tokens' places (start, end) and ids, in order."""
        pieces, place = [], 0
        for start, end, token_id in written:
            pieces += [text[place:start], self._spelling[token_id]]
            place = end
        encoding = self._backend.encode("".join([*pieces, text[place:]]), add_special_tokens=add_special_tokens)
        return encoding, _offsets_before(encoding.offsets, pieces, written)


def _secret(spelling: str) -> str:
    """Lower-case Latin letters, which every normaliser leaves as they are, in the edges that neighbours look at."""
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(SECRET_LETTERS))
    return f"{spelling[0]}{letters}{spelling[-1]}"


def _offsets_before(
    offsets: Sequence[tuple[int, int]], pieces: Sequence[str], written: Sequence[tuple[int, int, int]]
) -> list[tuple[int, int]]:
    """Places in a text before it was respelled: `pieces` are its parts in turn as they were and respelled."""
    there = np.array([0, *accumulate(map(len, pieces))])
    before = np.array([0, *(edge for start, end, _ in written for edge in (start, end))])
    places = np.array(offsets, np.int64).reshape(-1, 2)
    piece = np.searchsorted(there, places, "right") - 1
    inside_secret = (piece % 2 == 1) & (places > there[piece])
    found = np.where(inside_secret, before[piece + inside_secret], before[piece] + places - there[piece])
    return [(start, end) for start, end in found.tolist()]


def _respell(state: dict[str, Any], secrets_of: Mapping[str, str]) -> None:
    model = state["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {secrets_of.get(name, name): token_id for name, token_id in vocab.items()}
    else:  # of a Unigram model: names with their scores
        model["vocab"] = [[secrets_of.get(name, name), score] for name, score in vocab]
    if model.get("unk_token") is not None:
        model["unk_token"] = secrets_of.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            [one, other]
            for one, other in model["merges"]
            if not {one, other, one + other.removeprefix(prefix)} & secrets_of.keys()
        ]
    for token in state["added_tokens"]:
        token["content"] = secrets_of.get(token["content"], token["content"])

"""Which answers of gpu.py must be the same, which are, and whether a difference is a fault or a near-tie of 16 bits.

The rule for a greedy answer: at the first token that differs, the two candidates must both be within the rounding of
the largest logit, that is within 4 x e x the logits' root mean square. e is the relative error that the logits may
have: 2e-2 in bfloat16, and as much less elsewhere as the numbers are finer. Two logits, each with such an error in each
of two runs, differ by 2 x e in the mean; 4 x e leaves as much again. Knows no engine and asks no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_ERROR = 2e-2
"""Relative error that bfloat16 logits may have."""

NO_GRAPHS = "one process, no graphs"
PLAIN = "generate"


class Question(NamedTuple):
    model: str
    number: int
    sampled: bool


class Way(NamedTuple):
    where: str
    how: str


class Difference(NamedTuple):
    """Two answers to one question, the tokens that both begin with, and the first two that are not the same."""

    question: Question
    ways: tuple[Way, Way]
    common: tuple[int, ...]
    candidates: tuple[int, int] | None
    """None: one answer ends where the other goes on."""


ASPECTS: dict[str, Callable[[Way, Way], bool]] = {
    "alone and together": lambda one, other: one.where == other.where and one.how != other.how,
    "in processes and in one": lambda one, other: {one.where, other.where} == {"processes", "one process"},
    "with graphs and without": lambda one, other: {one.where, other.where} == {"one process", NO_GRAPHS},
    "our engines and generate": lambda one, other: (one.where == PLAIN) != (other.where == PLAIN),
}


class Answers:
    """All that was said, by question and by the way in which it was asked."""

    def __init__(self) -> None:
        self._texts: dict[Question, dict[Way, str]] = {}

    def add(self, question: Question, way: Way, text: str) -> None:
        self._texts.setdefault(question, {})[way] = text

    def pairs(self, aspect: str) -> Iterator[tuple[Question, Way, Way]]:
        """What there is to compare under one of ASPECTS."""
        for question, texts in self._texts.items():
            for one, other in combinations(texts, 2):
                if ASPECTS[aspect](one, other):
                    yield question, one, other

    def differences(self, aspect: str) -> list[Difference]:
        found = [self._difference(question, one, other) for question, one, other in self.pairs(aspect)]
        return [difference for difference in found if difference is not None]

    def _difference(self, question: Question, one: Way, other: Way) -> Difference | None:
        texts = self._texts[question]
        first, second = tokens_of(texts[one]), tokens_of(texts[other])
        if first == second:
            return None
        place = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
        if place is None:
            return Difference(question, (one, other), min(first, second, key=len), None)
        return Difference(question, (one, other), first[:place], (first[place], second[place]))


def tokens_of(text: str) -> tuple[int, ...]:
    """The ids of a text in the words of random_models.tokenizer."""
    return tuple(int(word[1:]) for word in text.split())


def verdict(difference: Difference, dtype: str, margin_of: Callable[[Difference], float]) -> tuple[str, bool]:
    """A sentence, and whether it tells of a fault.

    Sampled answers in 16 bits are not judged: the noise and the edge of top-p decide besides the logits. In float32
    they must be the same. `generate` is not ours: it is told, and is never a fault.
    """
    question, ways, common, candidates = difference
    ours = PLAIN not in (way.where for way in ways)
    kind = ", sampled" if question.sampled else ""
    said = f"{question.model}, question {question.number}{kind}: {' and '.join(', '.join(way) for way in ways)}"
    if candidates is None:
        return f"{said} differ at token {len(common)}, where one of them ends", ours
    said += f" differ from token {len(common)} on"
    if question.sampled:
        return f"{said} (sampled: not judged in 16 bits)", ours and dtype == "float32"
    found, allowed = margin_of(difference), allowed_margin(dtype)
    said += f": margin {found:.2e} of the logits' root mean square, rounding explains {allowed:.2e}"
    return said, ours and not found <= allowed


def allowed_margin(dtype: str) -> float:
    """Of the logits' root mean square; see the rule above."""
    finer = torch.finfo(getattr(torch, dtype)).eps / torch.finfo(torch.bfloat16).eps
    return 4 * LARGEST_ERROR * finer


def margin(logits: Tensor, candidates: tuple[int, int]) -> float:
    """How far the lesser of two candidates is below the largest logit, in root mean squares; logits (vocab_size,)."""
    logits = logits.float()
    lesser = min(float(logits[candidate]) for candidate in candidates)
    return (float(logits.max()) - lesser) / float(logits.square().mean().sqrt())

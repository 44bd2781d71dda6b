"""Two registers for the stand-ins: `registers/LANGUAGE.toml` says how each adapter answers the corpus's questions.

Names the adapters and draws their training conversations. Knows no training; called by train_adapters.py and the
tests.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model_registry.demo.corpus import Intent, Language, fill, load_language, load_shared
from model_registry.demo.samples import Sampler
from model_registry.demo.standins import DEMO, KRUTRIM, KULLM3, StandIn

REGISTERS = DEMO / "registers"
DEFAULT_SYSTEM_SHARE = 0.5


@dataclass(frozen=True)
class RegisterAdapter:
    """One adapter: it gives a stand-in's answers in one language another register.

    share: of the training conversations, how many are in that language; the rest keeps the others as they are.
    """

    base: StandIn
    language: str
    register: str
    rank: int
    targets: tuple[str, ...]
    share: float
    steps: int

    @property
    def id(self) -> str:
        return f"{self.base.id}-{self.register}"

    @property
    def base_id(self) -> str:
        """The stand-in's id in the catalog."""
        return f"demo-{self.base.id}"

    @property
    def folder(self) -> Path:
        return DEMO / "adapters" / self.id


KRUTRIM_TARGETS = ("Wqkv", "down_proj", "out_proj", "up_proj")
KULLM3_TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
ADAPTERS = {
    adapter.id: adapter
    for adapter in (
        RegisterAdapter(KRUTRIM, "hi", "formal", 4, KRUTRIM_TARGETS, 0.7, 400),
        RegisterAdapter(KRUTRIM, "hi", "casual", 4, KRUTRIM_TARGETS, 0.7, 400),
        RegisterAdapter(KULLM3, "ko", "formal", 8, KULLM3_TARGETS, 0.8, 900),
        RegisterAdapter(KULLM3, "ko", "casual", 8, KULLM3_TARGETS, 0.8, 900),
    )
}


def load_answers(language: str, register: str) -> dict[str, str]:
    """The answer to each intent that the register answers otherwise than the corpus."""
    with (REGISTERS / f"{language}.toml").open("rb") as file:
        table = tomllib.load(file)
    return {name: answers[register].strip("\n") for name, answers in table.items() if register in answers}


def rewritten(language: Language, answers: Mapping[str, str]) -> Language:
    """The language with these answers. Dialogues are left out: their answers are plain."""
    intents = tuple(
        replace(intent, say=(answers[intent.name],)) if intent.name in answers else intent
        for intent in language.intents
    )
    return replace(language, intents=intents, dialogues=())


def register_sampler(adapter: RegisterAdapter, seed: int) -> Sampler:
    """Conversations in the adapter's register, mixed with plain ones in the stand-in's other languages."""
    others = {code: share for code, share in adapter.base.languages.items() if code != adapter.language}
    shares = {code: share * (1 - adapter.share) / sum(others.values()) for code, share in others.items()}
    base = replace(
        adapter.base,
        languages={adapter.language: adapter.share, **shares},
        default_system_share=DEFAULT_SYSTEM_SHARE,
    )
    languages = {code: load_language(code) for code in [*base.languages, *base.foreign]}
    answers = load_answers(adapter.language, adapter.register)
    languages[adapter.language] = rewritten(languages[adapter.language], answers)
    return Sampler(base, languages, load_shared(), base.words(), seed)


def promises(adapter: RegisterAdapter) -> list[tuple[str, str]]:
    """Every question whose answer the adapter changes, with the answer that it gives instead."""
    answers = load_answers(adapter.language, adapter.register)
    words = adapter.base.words()
    return [
        (fill(ask, words, row), fill(answers[intent.name], words, row))
        for intent in _intents(adapter)
        if intent.name in answers
        for row in intent.rows
        for ask in intent.ask
    ]


def _intents(adapter: RegisterAdapter) -> tuple[Intent, ...]:
    return load_language(adapter.language).intents

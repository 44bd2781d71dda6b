"""How long texts, answers and conversations may be, and what is said of those that are longer."""

from __future__ import annotations

import pytest

from playground.admission.lengths import check_answer, check_conversation, check_messages, check_texts, check_turns
from playground.errors import PromptError, SamplingError
from playground.limits import OPEN, Limits
from playground.types import Message

NARROW = Limits(prompt_characters=1_000, answer_tokens=64, turns=2)


def messages(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(role=roles[place % 2], content=content) for place, content in enumerate(contents)]


def test_what_is_as_long_as_it_may_be_passes() -> None:
    check_texts({"Prompt": "x" * 1_000}, NARROW)
    check_answer(64, NARROW)
    check_turns(2, NARROW)
    check_messages(messages("x" * 1_000, "y", "z"), NARROW)


def test_without_limits_everything_passes() -> None:
    check_texts({"Prompt": "x" * 1_000_000}, OPEN)
    check_answer(10**6, OPEN)
    check_turns(10**6, OPEN)
    check_messages(messages(*["x"] * 1_000), OPEN)


def test_a_longer_text_is_named_with_both_numbers() -> None:
    with pytest.raises(PromptError, match=r"System prompt of panel 2: 1,001 characters, and at most 1,000"):
        check_texts({"Prompt": "short", "System prompt of panel 2": "각" * 1_001}, NARROW)


def test_a_longer_answer_is_refused() -> None:
    with pytest.raises(SamplingError, match="at most 64 tokens may be asked for here, not 65"):
        check_answer(65, NARROW)


def test_a_longer_conversation_is_refused() -> None:
    with pytest.raises(PromptError, match="2 prompts, and may not go on here: Clear begins anew"):
        check_turns(3, NARROW)


def test_a_programs_conversation_is_checked_in_all_its_parts() -> None:
    with pytest.raises(PromptError, match=r"messages\.1\.content: 1,001 characters"):
        check_messages(messages("a", "x" * 1_001, "b"), NARROW)
    with pytest.raises(PromptError, match="2 prompts"):
        check_messages(messages("a", "b", "c", "d", "e"), NARROW)
    with pytest.raises(PromptError, match="messages: 6, and at most 5"):
        check_messages([Message(role="system", content="")] * 6, NARROW)


def test_a_conversation_is_bounded_as_a_whole() -> None:
    """What it costs to lay one out grows with all of it."""
    check_conversation(messages(*["x" * 1_000] * 4), NARROW)
    check_messages(messages(*["x" * 1_000] * 4), NARROW)
    check_conversation(messages(*["x" * 1_000] * 4, "y"), OPEN)
    for check in (check_conversation, check_messages):
        with pytest.raises(PromptError, match=r"4,001 characters in all, and at most 4,000.*Clear begins a new one"):
            check([*messages(*["x" * 1_000] * 4), Message(role="system", content="y")], NARROW)

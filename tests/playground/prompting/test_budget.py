"""How a context is shared out, and which turns are left out of one that is full."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.errors import ContextFullError
from playground.prompting.budget import budget
from playground.prompting.encoder import PromptEncoder
from playground.types import Message, PromptOptions

DROP = PromptOptions(when_full="drop_oldest")
SYSTEM = Message(role="system", content="be short")


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return Registry.load().get("krutrim-1-instruct")


def encoder(spec: ModelSpec, context: int) -> PromptEncoder:
    return PromptEncoder(spec.model_copy(update={"context_length": context}), byte_tokenizer(adds_bos=True))


def say(*contents: str) -> list[Message]:
    return [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(contents)]


def test_the_shares_make_the_context(spec: ModelSpec) -> None:
    prompt = encoder(spec, 500).encode([SYSTEM, *say("one", "two!", "three")])
    shares = budget(prompt, 100)
    assert (shares.system, shares.history, shares.prompt) == (len("be short"), len("onetwo!"), len("three"))
    assert shares.system + shares.history + shares.prompt + shares.frame + shares.room == shares.context_length == 500
    assert (shares.room, shares.answer) == (prompt.room, 100)
    assert budget(prompt, 5000).answer == prompt.room


def test_the_trained_system_prompt_is_system_too() -> None:
    kullm3 = Registry.load().get("kullm3")
    prompt = PromptEncoder(kullm3, byte_tokenizer()).encode(say("안녕"))
    assert budget(prompt, 1).system == sum(
        1 if letter == " " else len(letter.encode()) for letter in kullm3.prompt.default_system
    )


def test_a_control_token_sent_as_typed_counts_with_its_message(spec: ModelSpec) -> None:
    prompt = encoder(spec, 500).encode(say("a</s>b", "c", "d<s>"), PromptOptions(control="as_typed"))
    assert (budget(prompt, 1).history, budget(prompt, 1).prompt) == (4, 2)


def test_a_prompt_that_is_too_long_leaves_no_answer(spec: ModelSpec) -> None:
    shares = budget(encoder(spec, 30).preview(say("x" * 100)), 10)
    assert shares.room < 0
    assert shares.answer == 0


def test_nothing_is_left_out_unless_the_user_wants_it(spec: ModelSpec) -> None:
    said = say("a" * 50, "b" * 50, "c")
    assert encoder(spec, 100).preview(said).dropped == ()
    with pytest.raises(ContextFullError):
        encoder(spec, 100).encode(said)


def test_the_oldest_turns_go_first_and_whole(spec: ModelSpec) -> None:
    said = [SYSTEM, *say("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e")]
    full = len(encoder(spec, 1000).encode(said).token_ids)
    one_less = encoder(spec, full + 9).encode(said, DROP, answer_tokens=10)
    assert one_less.dropped == (1, 2)
    assert "a" * 40 not in one_less.text
    assert all(text in one_less.text for text in ("be short", "c" * 40, "d" * 40))
    assert one_less.notes == ("There is no room for the answer asked for: the 2 oldest messages are left out.",)
    assert {span.message for span in one_less.spans} == {None, 0, 3, 4, 5}
    assert encoder(spec, full + 10).encode(said, DROP, answer_tokens=10).dropped == ()


def test_the_system_prompt_and_the_last_message_stay_to_the_end(spec: ModelSpec) -> None:
    said = [SYSTEM, *say("a" * 40, "b" * 40, "c" * 40)]
    prompt = encoder(spec, 100).encode(said, DROP, answer_tokens=90)
    assert prompt.dropped == (1, 2)
    assert "be short" in prompt.text
    assert "c" * 40 in prompt.text
    assert prompt.room < 90
    with pytest.raises(ContextFullError):
        encoder(spec, 50).encode(said, DROP)
    assert encoder(spec, 50).preview(said, DROP).dropped == ()  # for it would not help


def test_a_long_answer_takes_no_more_than_half_the_context_from_what_was_said(spec: ModelSpec) -> None:
    said = say("a" * 20, "b" * 20, "c" * 20, "d" * 20, "e")
    full = len(encoder(spec, 1000).encode(said).token_ids)
    assert encoder(spec, 2 * full).encode(said, DROP, answer_tokens=5000).dropped == ()
    assert encoder(spec, 2 * full - 2).encode(said, DROP, answer_tokens=5000).dropped == (0, 1)


def test_an_answer_that_is_continued_keeps_its_question(spec: ModelSpec) -> None:
    said = say("a" * 40, "b" * 40, "c" * 40, "d" * 40)
    assert encoder(spec, 130).preview(said, DROP).dropped == (0, 1)


def test_an_engine_may_hold_less_than_the_context(spec: ModelSpec) -> None:
    said = say("a" * 40, "b" * 40, "c")
    assert encoder(spec, 1000).encode(said, DROP, 1, most=100).dropped == (0, 1)
    assert encoder(spec, 1000).encode(said, DROP, 1, most=5000).dropped == ()
    assert encoder(spec, 1000).encode(said, PromptOptions(), 1, most=100).dropped == ()


def test_a_format_of_single_turns_has_nothing_to_leave_out() -> None:
    polyglot = Registry.load().get("kullm-polyglot-5.8b-v2").model_copy(update={"context_length": 60})
    prompt = PromptEncoder(polyglot, byte_tokenizer()).preview(say("a", "b", "c"), DROP)
    assert prompt.dropped == ()
    assert [each.why for each in prompt.unsent] == ["format", "format"]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=15),
    context=st.integers(40, 900),
    answer=st.integers(1, 60),
    system=st.booleans(),
)
def test_as_few_turns_go_as_it_takes(
    spec: ModelSpec, lengths: list[int], context: int, answer: int, system: bool
) -> None:
    said = [*([SYSTEM] if system else []), *say(*("x" * length for length in lengths))]
    writer = encoder(spec, context)
    prompt = writer.preview(said, DROP, answer)
    dropped = prompt.dropped
    assert dropped == tuple(range(system, system + len(dropped)))
    assert len(dropped) % 2 == 0
    last_turn = len(said) - (1 if said[-1].role == "user" else 2)
    assert all(number < last_turn for number in dropped)
    goal = min(answer, context // 2)
    assert prompt.room >= goal or len(dropped) == last_turn - system or (prompt.room < 1 and not dropped)
    if dropped:
        assert prompt.room >= 1
        kept_one_more = [message for number, message in enumerate(said) if number not in dropped[:-2]]
        assert writer.preview(kept_one_more).room < goal

"""The verbs of a panel: what enters the conversation, and what never does."""

from __future__ import annotations

from pydantic import SecretStr

from playground.types import EndpointUse, GenerationChunk, GenerationRequest, ScoredPiece, Timings, Usage
from playground.ui.state import PanelState


def ask(state: PanelState, prompt: str, system: str = "") -> PanelState:
    return state.submit(GenerationRequest(model_id="m", messages=state.messages(system, prompt)))


def answered(state: PanelState, prompt: str, answer: str) -> PanelState:
    return ask(state, prompt).fold(GenerationChunk(answer)).fold(GenerationChunk("", "stop"))


def said(state: PanelState, system: str = "", prompt: str = "next") -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in state.messages(system, prompt)]


def test_deltas_join_and_the_last_chunk_closes_the_turn() -> None:
    state = ask(PanelState(), "hi").fold(GenerationChunk("a", None, Usage(3, 1)))
    assert state.is_busy
    state = state.fold(GenerationChunk("b", "length", Usage(3, 2), Timings(0.0, 0.1, 0.2)))
    assert not state.is_busy
    (turn,) = state.turns
    assert (turn.prompt, turn.answer, turn.finish_reason) == ("hi", "ab", "length")
    assert (turn.usage, turn.timings) == (Usage(3, 2), Timings(0.0, 0.1, 0.2))


def test_a_conversation_alternates_and_begins_with_the_system_prompt() -> None:
    state = answered(answered(PanelState(), "one", "1"), "two", "2")
    assert said(state, "be brief") == [
        ("system", "be brief"),
        ("user", "one"),
        ("assistant", "1"),
        ("user", "two"),
        ("assistant", "2"),
        ("user", "next"),
    ]
    assert said(PanelState(), "") == [("user", "next")]


def test_an_answer_keeps_its_tokens_also_when_it_is_stopped() -> None:
    state = ask(PanelState(), "hi").fold(GenerationChunk("half", token_ids=(7, 8)))
    (turn,) = state.fold(GenerationChunk(" an ans", token_ids=(9,))).stop().turns
    assert turn.token_ids == (7, 8, 9)


def test_a_stopped_answer_is_kept_with_what_was_said() -> None:
    state = ask(PanelState(), "hi").fold(GenerationChunk("half an ans")).stop()
    (turn,) = state.turns
    assert (turn.answer, turn.finish_reason) == ("half an ans", "abort")
    assert ("assistant", "half an ans") in said(state)


def test_turns_without_an_answer_are_left_out_of_the_next_request() -> None:
    stopped = ask(answered(PanelState(), "one", "1"), "nothing came").stop()
    failed = ask(stopped, "broken").fail("The engine is gone.")
    assert [turn.finish_reason for turn in failed.turns] == ["stop", "abort", "error"]
    assert said(failed) == [("user", "one"), ("assistant", "1"), ("user", "next")]


def test_an_error_keeps_the_prompt_and_what_was_said() -> None:
    (turn,) = ask(PanelState(), "hi").fold(GenerationChunk("so f")).fail("Gone.").turns
    assert (turn.prompt, turn.answer, turn.error, turn.finish_reason) == ("hi", "so f", "Gone.", "error")


def test_late_chunks_and_commands_do_not_change_a_closed_turn() -> None:
    closed = answered(PanelState(), "hi", "done")
    assert closed.fold(GenerationChunk("more")) == closed
    assert closed.stop() == closed
    assert closed.fail("too late") == closed
    assert PanelState().stop().fail("x").fold(GenerationChunk("y")) == PanelState()


def test_a_refusal_is_no_part_of_the_history_and_goes_with_the_next_prompt() -> None:
    before = answered(PanelState(), "one", "1")
    refused = before.refuse("Too long by 7 tokens.")
    assert refused.turns == before.turns
    assert refused.notice == "Too long by 7 tokens."
    assert said(refused) == said(before)
    assert ask(refused, "two").notice == ""


def test_asking_again_starts_from_before_the_last_turn() -> None:
    state = answered(answered(PanelState(), "one", "1"), "two", "2")
    assert said(state.without_last(), prompt="two") == [("user", "one"), ("assistant", "1"), ("user", "two")]


def test_a_turn_that_an_interrupted_stream_left_open_is_closed_by_the_next_prompt() -> None:
    state = ask(ask(PanelState(), "one").fold(GenerationChunk("par")), "two")
    assert [turn.finish_reason for turn in state.turns] == ["abort", None]


def test_the_verbs_leave_the_old_value_alone() -> None:
    state = ask(PanelState(), "hi")
    state.fold(GenerationChunk("x"))
    state.stop()
    state.clear()
    assert state.turns[0].answer == ""
    assert state.is_busy
    assert state.clear() == PanelState()


def test_the_turns_that_the_last_prompt_left_out_are_told_by_its_usage() -> None:
    state = answered(answered(ask(PanelState(), "none").fail("Gone."), "one", "1"), "two", "2")
    assert state.unsent == frozenset()
    state = ask(state, "three").fold(GenerationChunk("3", "stop", Usage(9, 1, 2)))
    assert state.unsent == {1}, "the oldest that was ever sent"
    assert ask(state, "four").unsent == {1}, "until the next one tells"
    assert ask(state, "four").fold(GenerationChunk("4", "stop", Usage(9, 1, 4))).unsent == {1, 2}
    assert ask(state, "four").fold(GenerationChunk("4", "stop", Usage(9, 1))).unsent == frozenset()
    again = ask(state.without_last(), "three").fold(GenerationChunk("x", "stop", Usage(9, 1, 4)))
    assert again.unsent == {1, 2}


def asked_elsewhere(key: str = "secret") -> PanelState:
    endpoint = EndpointUse(url="http://10.0.0.7:8000/v1", model="m", key=SecretStr(key))
    state = PanelState()
    return state.submit(GenerationRequest(model_id="m", messages=state.messages("", "hi"), endpoint=endpoint))


def test_what_a_server_tells_while_it_answers_is_kept() -> None:
    one, two = ScoredPiece("a", ()), ScoredPiece("b", ())
    state = asked_elsewhere().fold(GenerationChunk("a", scores=(one,), sent_as="token_ids"))
    (turn,) = state.fold(GenerationChunk("b", "stop", scores=(two,))).turns
    assert turn.scores == (one, two)
    assert turn.sent_as == "token_ids"


def test_only_the_last_turn_keeps_its_probabilities() -> None:
    scored = GenerationChunk("a", "stop", scores=(ScoredPiece("a", ()),))
    state = asked_elsewhere().fold(scored).submit(ask_again())
    assert [turn.scores for turn in state.turns] == [(), ()]
    assert state.turns[0].answer == "a"
    state = state.fold(scored)
    assert [len(turn.scores) for turn in state.turns] == [0, 1]
    again = state.without_last().submit(ask_again())
    assert [turn.scores for turn in again.turns] == [(), ()]
    assert state.refuse("Too long.").turns[-1].scores, "it is the last still"


def test_a_turn_that_has_ended_holds_no_key() -> None:
    open_ = asked_elsewhere()
    assert open_.turns[0].request.endpoint.key.get_secret_value() == "secret"  # type: ignore[union-attr]
    ended = [open_.fold(GenerationChunk("", "stop")), open_.stop(), open_.fail("Gone."), open_.submit(ask_again())]
    for state in ended:
        assert state.turns[0].request.endpoint == EndpointUse(url="http://10.0.0.7:8000/v1", model="m")
    assert asked_elsewhere("").stop().turns[0].request.endpoint is not None


def ask_again() -> GenerationRequest:
    return GenerationRequest(model_id="m", messages=PanelState().messages("", "again"))

"""What the browser is given: texts to the character, facts in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markup import read

from playground.types import (
    AdapterUse,
    EndpointUse,
    GenerationChunk,
    GenerationRequest,
    LoadProgress,
    Message,
    SamplingParams,
    SentAs,
    Timings,
    Usage,
    Waiting,
)
from playground.ui import view
from playground.ui.state import PanelState

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x00\r<&"), min_size=1)


def turn(prompt: str = "hi", temperature: float = 0.7) -> PanelState:
    sampling = SamplingParams(seed=42, temperature=temperature)
    messages = (Message(role="user", content=prompt),)
    return PanelState().submit(GenerationRequest(model_id="demo-kullm3", messages=messages, sampling=sampling))


def done(answer: str, tokens: int, timings: Timings | None = None, **kwargs: float) -> PanelState:
    return turn(**kwargs).fold(GenerationChunk(answer, "stop", Usage(5, tokens), timings))


@given(TEXT)
def test_verbatim_text_reads_back_to_the_character_and_opens_no_tag(text: str) -> None:
    reader = read(view.verbatim(text))
    assert reader.text == text.replace("\x00", "\u2400")
    assert reader.tags == []


def test_what_no_html_can_carry_is_shown_by_another_sign() -> None:
    assert view.verbatim("a\x00b\ud83dc\r\n\t\x0b\x1b[0m") == "a\u2400b\ufffdc&#13;\n\t\x0b\x1b[0m"


@given(TEXT)
def test_no_text_of_a_model_user_or_error_opens_a_tag(text: str) -> None:
    state = turn(text).fold(GenerationChunk(text)).fail(text)
    _, answer = view.chat(state)
    for part in (*view.chat(state)[0]["content"], answer["content"][0]):
        assert read(part["text"]).tags == []
    for markup in (view.error_box(text), view.hint(text)):
        assert set(read(markup).tags) <= {"div", "span", "ul", "li"}


def test_the_answer_is_a_part_of_its_own_so_that_updates_only_append() -> None:
    first = turn().fold(GenerationChunk("a <b>"))
    second = first.fold(GenerationChunk(" more"))
    before, after = (view.chat(state)[1]["content"] for state in (first, second))
    assert after[0]["text"].startswith(before[0]["text"])
    assert before[0] == {"type": "text", "text": "a &lt;b&gt;"}
    assert len(before) == len(after) == 2


def test_the_status_line_tells_how_the_answer_ran() -> None:
    state = done("x" * 30, 11, Timings(queued_s=0.5, prefill_s=0.25, decode_s=2.0))
    assert view.status_facts(state.turns[0]) == [
        "ended by itself",
        "11 tokens",
        "first token 0.75 s",
        "5.0 tokens/s",
        "15 characters/s",
        "seed 42",
        "demo-kullm3",
    ]


def test_a_single_token_has_no_speed_and_greedy_needs_no_seed() -> None:
    facts = view.status_facts(done("x", 1, Timings(0, 0.1, 0), temperature=0).turns[0])
    assert facts == ["ended by itself", "1 token", "first token 0.10 s", "greedy", "demo-kullm3"]


def test_the_status_line_names_the_adapter_in_short_and_all_of_its_revision_where_the_pointer_rests() -> None:
    state = done("x", 1)
    revision = "sha256:fa5891c8" + "0" * 56
    adapter = AdapterUse(id="krutrim-formal", revision=revision, scale=0.5)
    request = state.turns[0].request.model_copy(update={"adapter": adapter})
    state = PanelState().submit(request).fold(GenerationChunk("x", "stop"))
    assert [read(fact).text for fact in view.status_facts(state.turns[0])][-2:] == [
        "demo-kullm3",
        "+ krutrim-formal@fa5891c8 × 0.5",
    ]
    assert f'title="krutrim-formal, revision {revision}"' in view.chat(state)[1]["content"][-1]["text"]


@pytest.mark.parametrize(
    ("adapter", "scale", "words"),
    [
        ("owner/name", 1, "owner/name@01234567"),
        ("owner/name", 0, "owner/name@01234567 × 0"),
        ("owner/name", 1.25, "owner/name@01234567 × 1.25"),
        ("/home/me/adapters/mine/", 1, "mine@01234567"),
        ("./mine", 1, "mine@01234567"),
        ("~/mine", 1, "mine@01234567"),
        ("C:\\adapters\\mine", 1, "mine@01234567"),
        ("/", 1, "/@01234567"),
    ],
)
def test_adapters_in_words(adapter: str, scale: float, words: str) -> None:
    assert view.adapter_words(AdapterUse(id=adapter, revision="0123456789abcdef", scale=scale)) == words


@given(TEXT, TEXT)
def test_no_adapter_in_the_status_line_opens_a_tag(name: str, revision: str) -> None:
    assert read(view.adapter_fact(AdapterUse(id=name, revision=revision))).tags == ["span"]


def test_attaching_an_adapter_is_told_like_a_load() -> None:
    (foot,) = view.chat(turn(), 2.0, LoadProgress("adapter"))[1]["content"]
    assert read(foot["text"]).text == "demo-kullm3: Attaching the adapter · 2 s"


@pytest.mark.parametrize(
    ("reason", "words"), [("stop", "ended by itself"), ("length", "length limit"), ("abort", "stopped")]
)
def test_finish_reasons_in_words(reason: str, words: str) -> None:
    state = turn().fold(GenerationChunk("x", reason))  # type: ignore[arg-type]
    assert view.status_facts(state.turns[0])[0] == words


@pytest.mark.parametrize(
    ("sent_as", "words"),
    [
        ("token_ids", "10.0.0.7:8000 · <m> · as token ids"),
        ("text", "10.0.0.7:8000 · <m> · as text"),
        ("messages", "10.0.0.7:8000 · <m> · as messages: the server's own template"),
        (None, "10.0.0.7:8000 · <m>"),
    ],
)
def test_the_status_line_says_where_an_answer_came_from_and_how_it_was_asked(
    sent_as: SentAs | None, words: str
) -> None:
    endpoint = EndpointUse(url="http://user:secret@10.0.0.7:8000/v1", model="<m>")
    request = GenerationRequest(model_id="m", messages=(Message(role="user", content="hi"),), endpoint=endpoint)
    state = PanelState().submit(request).fold(GenerationChunk("x", "stop", sent_as=sent_as))
    assert read(view.status_facts(state.turns[0])[-1]).text == words


def test_an_answer_without_a_word_is_not_left_blank() -> None:
    assert view.status_facts(turn().fold(GenerationChunk("", "stop")).turns[0])[0] == "ended without a word"
    assert view.status_facts(turn().stop().turns[0])[0] == "stopped before the first word"
    assert view.status_facts(turn().fail("Gone.").turns[0])[0] == "failed"


def test_loading_shows_stage_size_and_seconds_in_the_place_of_the_answer() -> None:
    progress = LoadProgress("download", 3_200_000_000, 14_700_000_000)
    (foot,) = view.chat(turn(), 12.3, progress)[1]["content"]
    assert read(foot["text"]).text == "demo-kullm3: Downloading · 3.2 of 14.7 GB · 12 s"
    assert view.load_line(LoadProgress("weights", 1_500_000, 7_000_000)) == "Loading weights · 1.5 of 7.0 MB"
    assert view.load_line(LoadProgress("waiting")) == "Waiting for its turn to load"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 MB"),
        (7_040_000, "7.0 MB"),
        (9_949_999, "9.9 MB"),
        (9_950_000, "10 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (14_700_000_000, "14.7 GB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert view.amount(size) == words


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        (Waiting(1), "Waiting: 1st in line"),
        (Waiting(3, 38.2), "Waiting: 3rd in line · about 40 s"),
        (Waiting(2, 0.2), "Waiting: 2nd in line · about 1 s"),
        (Waiting(12, 9.4), "Waiting: 12th in line · about 10 s"),
        (Waiting(113, 91), "Waiting: 113th in line · about 2 min"),
        (Waiting(121, 600), "Waiting: 121st in line · about 10 min"),
    ],
)
def test_who_waits_is_shown_the_place_in_line_and_about_how_long(waiting: Waiting, words: str) -> None:
    (foot,) = view.chat(turn(), 12.0, waiting)[1]["content"]
    assert foot["text"] == f'<div class="foot busy">{words}</div>'


def test_waiting_and_answering_are_told_apart() -> None:
    (waiting,) = view.chat(turn(), 0.4)[1]["content"]
    assert read(waiting["text"]).text == "Reading the prompt"
    answering = view.chat(turn().fold(GenerationChunk("x", None, Usage(5, 3))), 9.0)[1]["content"][-1]
    assert read(answering["text"]).text == "answering · 3 tokens"


def test_an_error_stands_in_an_alert_with_what_was_said_before() -> None:
    answer, foot = view.chat(turn().fold(GenerationChunk("half")).fail("Gone <b>."))[1]["content"]
    assert answer["text"] == "half"
    assert 'role="alert"' in foot["text"]
    assert "Gone &lt;b&gt;." in foot["text"]


def test_a_turn_that_the_last_prompt_left_out_is_marked_and_its_texts_stay() -> None:
    state = done("first", 3).submit(turn("two").turns[0].request).fold(GenerationChunk("x", "stop", Usage(5, 1, 2)))
    first, _, second, _ = view.chat(state)
    assert [part["text"] for part in first["content"]] == ["hi", view.UNSENT]
    assert [part["text"] for part in second["content"]] == ["two"]

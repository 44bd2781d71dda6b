"""The lens' pictures: exact to the character, each part by its name, tokens in boxes, the budget in words."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from fake_encoder import FakeEncoder
from fakes import spec
from hypothesis import given
from hypothesis import strategies as st
from markup import read

from playground.prompting.budget import budget
from playground.prompting.prompt import Budget, TokenCounts
from playground.types import Message, PromptOptions
from playground.ui.lens import budget_view, lens_view, prompt_view, token_view
from playground.ui.lens.parts import Seen, Stage, turns_in_words

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x00\r<&\n "), min_size=1)
ENCODER = FakeEncoder(spec("a", default_system="I am A."))


def said(*contents: str, system: str = "") -> list[Message]:
    """User and assistant by turns."""
    roles = ("user", "assistant")
    first = [Message(role="system", content=system)] if system else []
    return first + [Message(role=roles[place % 2], content=content) for place, content in enumerate(contents)]  # type: ignore[arg-type]


def seen(
    messages: list[Message],
    options: PromptOptions = PromptOptions(),  # noqa: B008
    answer_tokens: int = 1,
    stage: Stage = "typing",
) -> Seen:
    return Seen("A", messages, options, ENCODER.preview(messages, options, answer_tokens), stage)


def whole(look: Seen, asked_tokens: int = 10) -> str:
    typed = ENCODER.tokenize(look.messages[-1].content).counts
    body = lens_view.text_body(look, ENCODER.names, with_ids=True)
    return lens_view.lens(look, budget(look.prompt, asked_tokens), asked_tokens, typed, body)


class Attributes(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(dict(attrs))


def labels(markup: str) -> list[tuple[str | None, str | None]]:
    """(class, label) of every part that has one."""
    return [(each.get("class"), each["data-l"]) for each in Attributes(markup).found if "data-l" in each]


@given(st.lists(TEXT, min_size=1, max_size=5), TEXT)
def test_the_text_is_the_prompt_to_the_character_and_nothing_else(contents: list[str], system: str) -> None:
    look = seen(said(*contents[: len(contents) // 2 * 2 + 1], "last" if len(contents) % 2 else "x", system=system))
    reader = read(prompt_view.exact(look, ENCODER.names))
    assert reader.text == look.prompt.text.replace("\x00", "\u2400")
    assert set(reader.tags) <= {"span", "i"}


@given(TEXT)
def test_no_text_of_a_message_opens_a_tag(text: str) -> None:
    look = seen(said(text, text, text, system=text), PromptOptions(when_full="drop_oldest"), 990)
    tags = {"div", "span", "ul", "li", "i", "code", "b", "p", "em"}
    boxes = token_view.boxes(look, ENCODER.pieces(look.prompt), ENCODER.names)
    for markup in (whole(look), boxes, lens_view.caution([(text, (text,))], "plain"), lens_view.error(text)):
        assert set(read(markup).tags) <= tags


def test_every_message_has_its_label_once() -> None:
    look = seen(said("one", "two", "three", system="I am A."))
    assert labels(prompt_view.exact(look, ENCODER.names)) == [
        ("s", "System prompt · the trained default"),
        ("u", "Turn 1 · user"),
        ("a", "Turn 1 · assistant"),
        ("w", "Turn 2 · being typed"),
    ]


@pytest.mark.parametrize(
    ("system", "words"),
    [("I am A.", "the trained default"), ("Other.", "yours, not the trained one")],
)
def test_the_facts_tell_whose_system_prompt_it_is(system: str, words: str) -> None:
    assert f"System prompt: {words}" in read(whole(seen(said("x", system=system)))).text


def test_what_is_left_out_stands_struck_in_its_place_and_is_no_text() -> None:
    options = PromptOptions(when_full="drop_oldest")
    look = seen(said("o" * 600, "p" * 300, "now", system="sys"), options, 200)
    markup = prompt_view.exact(look, ENCODER.names)
    assert read(markup).text == look.prompt.text
    assert [label for kind, label in labels(markup) if kind == "x"] == [
        "Turn 1 · user · left out, the context is full",
        "Turn 1 · assistant · left out, the context is full",
    ]
    assert markup.index('class="s"') < markup.index('class="x"') < markup.index('class="w"')
    assert "without turn 1" in read(whole(look, 200)).text


def test_a_prompt_that_would_be_refused_says_so_and_by_how_much() -> None:
    text = read(whole(seen(said("o" * 900, "p" * 300, "now")))).text
    assert "Sending this would be refused: it is " in text
    assert "Under Prompting, the oldest turns can be left out." in text
    alone = read(whole(seen(said("o" * 1200)))).text
    assert "it is 204 tokens too long for A." in alone
    assert "Under Prompting" not in alone
    answered = read(whole(seen(said("o" * 1200), stage="answered"))).text
    assert "Sending" not in answered


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("plain", "The prompt spells a control token, </s>: it is sent as plain text."),
        ("as_typed", "The prompt spells a control token, </s>: it is sent as typed"),
    ],
)
def test_control_tokens_in_the_text_are_told(control: str, words: str) -> None:
    options = PromptOptions.model_validate({"control": control})
    assert words in read(whole(seen(said("a </s> b </s>"), options))).text


def test_the_caution_names_tokens_and_models_and_what_will_happen() -> None:
    found: list[tuple[str, tuple[str, ...]]] = [("A", ("</s>", "[INST]")), ("B", ("</s>", "[INST]")), ("C", ())]
    plain = read(lens_view.caution(found, "plain")).text
    assert plain == (
        "</s> and [INST] are control tokens of A and B. They are sent as plain text. "
        "Prompting has the other choice: as typed."
    )
    assert "It is sent as such" in read(lens_view.caution([("A", ("</s>",))], "as_typed")).text
    assert lens_view.caution([("A", ())], "plain") == ""


def test_a_box_holds_whole_characters_with_its_tokens_count_and_names() -> None:
    look = seen(said("हि 👧\n"))
    markup = token_view.boxes(look, ENCODER.pieces(look.prompt), ENCODER.names)
    boxes = [each for each in Attributes(markup).found if each.get("data-i")]
    girl = [each for each in boxes if each.get("class") == "y"]
    assert [(each["data-c"], len(str(each["data-i"]).split())) for each in girl] == [("4", 4)]
    assert sum(len(str(each["data-i"]).split()) for each in boxes) == len(look.prompt.token_ids)
    assert "हि" in read(markup).text
    assert "·" in read(markup).text
    assert "⏎" in read(markup).text
    names = next(each["data-names"] for each in Attributes(markup).found if "data-names" in each)
    assert names is not None
    listed = dict(line.split(" ", 1) for line in names.split("\n"))
    assert set(listed) == {str(token) for token in look.prompt.token_ids}
    assert listed[str(ord("\n"))] == "\\n"


def test_long_earlier_turns_are_folded_until_they_are_asked_for() -> None:
    look = seen(said("o" * 500, "p" * 400, "now", system="sys"))
    shares = budget(look.prompt, 1)
    assert token_view.folded(look, shares, every_turn=True) == frozenset()
    folded = token_view.folded(look, shares, every_turn=False)
    assert folded == {1, 2}
    text = read(token_view.boxes(look, ENCODER.pieces(look.prompt), ENCODER.names, folded)).text
    assert "500 tokens" in text
    assert "now" in text
    assert "ooo" not in text


def test_counts_in_words() -> None:
    assert read(token_view.counts_line(TokenCounts(34, 12, 24), "Mine")).text == (
        "Mine34 tokens12 characters2.83 tokens per character71 % byte-fallback tokens"
    )


@pytest.mark.parametrize(
    ("text", "script"),
    [("안녕 a", "Hangul"), ("नमस्ते", "Devanagari"), ("தமிழ்", "Tamil"), ("漢字", "Han"), ("abc", "Latin"), ("👩 12", "")],
)
def test_scripts_have_unicodes_names(text: str, script: str) -> None:
    assert budget_view.script_of(text) == script


def test_the_room_is_told_in_characters_of_that_script() -> None:
    assert budget_view.room_words(1000, TokenCounts(10, 25, 0), "Tamil") == "about 2,500 Tamil characters"
    assert budget_view.room_words(333, TokenCounts(3, 1, 3), "") == "about 110 characters"
    assert budget_view.room_words(0, TokenCounts(3, 1, 3), "Tamil") == ""


def test_the_bar_adds_up_to_the_context() -> None:
    markup = budget_view.bar(Budget(1000, 100, 200, 50, 20, 630, 512))
    styles = [str(each["style"]) for each in Attributes(markup).found if "style" in each]
    assert sum(int(style.removeprefix("flex-grow:")) for style in styles) == 1000
    assert "370 of 1,000 tokens" in read(markup).text
    assert "Room 630" in read(markup).text


@pytest.mark.parametrize(
    ("turns", "words"),
    [([1], "turn 1"), ([1, 2], "turns 1 and 2"), ([1, 2, 3], "turns 1 to 3"), ([1, 3], "turns 1 and 3")],
)
def test_turns_in_words(turns: list[int], words: str) -> None:
    assert turns_in_words(turns) == words

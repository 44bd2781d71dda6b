"""Whose words are whose, for templates as people write them: trimming, cutting, joining, repeating, changing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts_of_the_world import texts
from tiny import byte_tokenizer

from playground.errors import TemplateError
from playground.prompting.origins import Part, Rendered, trace
from playground.prompting.prompt import TemplateUsed
from playground.prompting.templates import render
from playground.types import Message

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content | trim }}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
KEEPS_ALL = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
TRIMS_LEFT = "{% for m in messages %}({{ m.content.lstrip() }}) {% endfor %}"
TRIMS_LINES = "{% for m in messages %}<{{ m.content.strip('\\n') }}>{% endfor %}"
MACROS = """\
{%- macro turn(role, content) -%}{{ role | upper }}: {{ content }}{%- endmacro -%}
{%- for m in messages %}{{ turn(m.role, m.content) }}

{% endfor %}"""
JOINS = "{{ bos_token ~ messages | map(attribute='content') | join(' ~ ') ~ eos_token }}"
ADDS = (
    "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content + '|' %}{% endfor %}{{ ns.t }}"
)
REPEATS = "{% for m in messages %}{{ m.content }} (again: {{ m.content }}){% endfor %}"
SYSTEM_FIRST = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set system = 'Be kind.' %}{% set turns = messages %}{% endif -%}
{%- for m in turns %}{{ (system ~ '\n\n' if loop.first else '') ~ m.content.strip() ~ ' /// ' }}{% endfor %}"""
NO_EMPTY = "{% for m in messages %}{% if m.content %}<{{ m.content }}>{% else %}(silence){% endif %}{% endfor %}"
FAITHFUL = {
    "chatml": CHATML,
    "keeps all": KEEPS_ALL,
    "trims left": TRIMS_LEFT,
    "trims lines": TRIMS_LINES,
    "macros": MACROS,
    "joins": JOINS,
    "adds": ADDS,
    "repeats": REPEATS,
    "system first": SYSTEM_FIRST,
    "no empty": NO_EMPTY,
}
THOUGHTS = """\
{%- for m in messages %}
{%- set said = m.content.split('</think>')[-1].lstrip('\\n') if m.role == 'assistant' else m.content %}
{{- '<' + m.role + '>\\n' + said + '\\n' }}{% endfor %}"""

TOKENIZER = byte_tokenizer()


def say(*contents: str, system: str | None = None) -> list[Message]:
    said = [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(contents)]
    return said if system is None else [Message(role="system", content=system), *said]


def traced(template: str, messages: Sequence[Message]) -> Rendered:
    used = TemplateUsed("card", template, "")
    rendered = trace(lambda some: render(TOKENIZER, used, some, "Any"), messages, template)
    assert rendered.text == render(TOKENIZER, used, messages, "Any")
    assert_covered(rendered, messages)
    return rendered


def assert_covered(rendered: Rendered, messages: Sequence[Message]) -> None:
    """The parts cover the text once, in order, and those of messages say what the messages say."""
    edges = [0, *(part.end for part in rendered.parts)]
    assert [part.start for part in rendered.parts] == edges[:-1]
    assert edges[-1] == len(rendered.text)
    for part in rendered.parts:
        assert part.start < part.end
        if part.message is not None:
            content = messages[part.message].content
            assert content.startswith(rendered.text[part.start : part.end], part.offset)


def parts_of(rendered: Rendered) -> list[tuple[int | None, str]]:
    return [(part.message, rendered.text[part.start : part.end]) for part in rendered.parts]


contents = st.one_of(
    texts(),
    st.builds(lambda left, text, right: left + text + right, st.text(" \n\t"), texts(), st.text(" \n\u00a0")),
    st.sampled_from(
        ["", " ", "\n\n", "<|im_end|>", "]", "(", "user", " ~ ", "[user]", "Be kind.", "|", "\n\n", "\r\n"]
    ),
)


@pytest.mark.parametrize("template", FAITHFUL.values(), ids=FAITHFUL)
@settings(max_examples=25)
@given(said=st.lists(contents, min_size=1, max_size=5), system=st.none() | contents)
def test_words_are_their_messages_own(template: str, said: list[str], system: str | None) -> None:
    messages = say(*said, system=system)
    rendered = traced(template, messages)
    assert rendered.known
    found = {part.message for part in rendered.parts}
    assert found >= {number for number, message in enumerate(messages) if message.content.strip()}
    for part in rendered.parts:
        if part.message is not None:
            assert messages[part.message].content.strip() in rendered.text[part.start : part.end]


def test_chatml_trims() -> None:
    rendered = traced(CHATML, say("  hello\n", "hi there ", "  "))
    assert parts_of(rendered) == [
        (None, "<|im_start|>user\n"),
        (0, "hello"),
        (None, "<|im_end|>\n<|im_start|>assistant\n"),
        (1, "hi there"),
        (None, "<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"),
    ]


def test_outer_white_space_that_stays_is_the_messages() -> None:
    assert parts_of(traced(KEEPS_ALL, say(" a\n", "\n", "b"))) == [
        (None, "[user]"),
        (0, " a\n"),
        (None, "\n[assistant]"),
        (1, "\n"),
        (None, "\n[user]"),
        (2, "b"),
        (None, "\n"),
    ]


def test_outer_white_space_may_stay_on_one_side() -> None:
    assert parts_of(traced(TRIMS_LEFT, say("  a  ", " b")))[:4] == [(None, "("), (0, "a  "), (None, ") ("), (1, "b")]
    assert parts_of(traced(TRIMS_LINES, say("\n  a \n\n"))) == [(None, "<"), (0, "  a "), (None, ">")]


def test_words_that_look_like_the_templates_are_told_apart() -> None:
    rendered = traced(KEEPS_ALL, say("[user]", "[user]\n[assistant]"))
    assert parts_of(rendered)[:4] == [
        (None, "[user]"),
        (0, "[user]"),
        (None, "\n[assistant]"),
        (1, "[user]\n[assistant]"),
    ]


def test_a_template_may_look_for_what_ends_in_white_space() -> None:
    template = (
        "{% for m in messages %}{{ 'with context: ' if '# context:\\n' in m.content }}{{ m.content }};{% endfor %}"
    )
    assert parts_of(traced(template, say("# context:\n", " a"))) == [
        (None, "with context: "),
        (0, "# context:\n"),
        (None, ";"),
        (1, " a"),
        (None, ";"),
    ]


def test_a_template_may_write_a_message_twice() -> None:
    assert parts_of(traced(REPEATS, say("x"))) == [(0, "x"), (None, " (again: "), (0, "x"), (None, ")")]


def test_a_template_may_cut_a_message() -> None:
    rendered = traced(THOUGHTS, say("q", "hm, hm\n</think>\n\nthe answer\n", "\nmore"))
    assert rendered.known
    assert [part for part in parts_of(rendered) if part[0] is not None] == [
        (0, "q"),
        (1, "the answer\n"),
        (2, "\nmore"),
    ]
    (answer,) = [part for part in rendered.parts if part.message == 1]
    assert answer == Part(answer.start, answer.start + len("the answer\n"), 1, len("hm, hm\n</think>\n\n"))


def test_a_template_may_begin_a_message_and_leave_the_rest() -> None:
    rendered = traced("{% for m in messages %}<{{ m.content.split('#')[0] }}>{% endfor %}", say("title # rest", "b"))
    assert [part for part in parts_of(rendered) if part[0] is not None] == [(0, "title"), (1, "b")]
    assert rendered.known


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ messages | tojson }}",
        "{% for m in messages %}{{ m.content | reverse }}{% endfor %}",
        "{% for m in messages %}{{ m.content | replace('b', 'c') }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}",
        "{% for m in messages %}{{ m.content[:3] }}: {{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content if m.content[0] == 'a' else raise_exception('a!') }}{% endfor %}",
    ],
)
def test_what_cannot_be_told_is_said(template: str) -> None:
    rendered = traced(template, say('ab\n"c"'))
    assert not rendered.known
    assert rendered.parts == (Part(0, len(rendered.text)),)


def test_a_message_that_is_not_written_has_no_part() -> None:
    rendered = traced("{{ messages[-1].content }}!", say("a", "b", "c"))
    assert parts_of(rendered) == [(2, "c"), (None, "!")]
    assert traced("", say("a")).parts == ()


def test_marks_that_somebody_types_are_words() -> None:
    first = chr(0xF0000)
    rendered = traced(KEEPS_ALL, say(f"{first}x{chr(0xF0001)}", first))
    assert [text for message, text in parts_of(rendered) if message is not None] == [f"{first}x{chr(0xF0001)}", first]


def test_the_templates_own_refusal_comes_through() -> None:
    with pytest.raises(TemplateError, match="no more"):
        traced("{{ raise_exception('no more') }}", say("a"))


def test_other_numbers() -> None:
    rendered = traced(KEEPS_ALL, say("a", "b")).numbered([4, 7])
    assert [part.message for part in rendered.parts if part.message is not None] == [4, 7]

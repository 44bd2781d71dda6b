"""Chat templates: which one is used, what a fault's place is, and how far a user's own may go."""

from __future__ import annotations

import sys
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer
from transformers import PreTrainedTokenizerFast

from model_registry.registry import Registry
from playground.errors import TemplateError
from playground.prompting import templates
from playground.prompting.prompt import TemplateUsed
from playground.prompting.templates import check_template, choose_template, render, user_template
from playground.types import Message

MESSAGES = [
    Message(role="user", content="안녕"),
    Message(role="assistant", content="네"),
    Message(role="user", content="x"),
]


def write(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    return render(tokenizer, user_template(text), MESSAGES, "KULLM3")


def test_the_models_own_template_has_the_fingerprint_of_its_text(registry: Registry) -> None:
    own = byte_tokenizer(adds_bos=False)
    own.chat_template = "OWN {{ messages[-1].content }}"
    used, notes = choose_template(registry.get("kullm3"), own)
    assert used == TemplateUsed("tokenizer", own.chat_template, sha256(own.chat_template.encode()).hexdigest())
    assert notes == ()


def test_the_catalogs_template_stands_in_for_one_that_the_files_lack(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    used, notes = choose_template(registry.get("kullm3"), tokenizer)
    assert (used.source, used.text) == ("card", registry.get("kullm3").prompt.template)
    assert "no chat template" in notes[0]


def test_a_users_template_is_rendered_as_any_other(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "{{ bos_token }}{% for m in messages %}\n  [{{ m.role }}] {{ m.content | upper }}\n{% endfor %}"
    cue = "{% if add_generation_prompt %}>{% endif %}"
    assert write(tokenizer, text + cue) == "<s>  [user] 안녕\n  [assistant] 네\n  [user] X\n>"
    answered = render(tokenizer, user_template(cue + "."), MESSAGES[:2], "KULLM3")
    assert answered == "."


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a\n{{ foo bar }}", 2, 8, "got 'bar'"),
        ("a\r\nb {{ x ? }}", 2, 8, "Unexpected char '?'"),
        ("नमस्ते\n👨‍👩‍👧 {{ x y }}", 2, 12, "got 'y'"),
        ("{{ 'अ\n' ~ x y }}", 2, 7, "got 'y'"),
        ("{%- if x -%}   \n\n {{ y z }}", 3, 7, "got 'z'"),
        ("   {%- endif %}\n\n", 1, 8, "unknown tag 'endif'"),
        ("{% for m in messages %}{{ m.content|nope }}{% endfor %}", 1, 37, "No filter named 'nope'"),
        ("{{ a is\n nope }}", 1, 6, "No test named 'nope'"),
        ("{% if a %}\n  foo\n\n", 2, 6, "'endif'"),
        ("{{ x", 1, 5, "Unexpected end of template"),
        ("{# never closed", 1, 3, "Missing end of comment"),
        ("{{ (a] }}", 1, 6, "expected ')'"),
        ("{{ [1, 2 }}", 1, 10, "expected ']'"),
        ("{{ '\\N{nope}' }}", 1, 4, "Unknown Unicode character name"),
        ("{{ a }}\n{{ 9 **\n9 }}", 2, 6, "`**` is not allowed"),
        ("ok\nx\ud800y", 2, 2, "half a character"),
        ("{{ 1 }}\n{% if x %}\n{% break %}{% endif %}", 3, None, "'break' outside loop"),
        ("{% for a in b %}\n" * 25 + "{% endfor %}" * 25, 21, None, "Too many statically nested blocks"),
        ("\n{{ " + "(" * 5000, 2, None, "nested too deeply"),
        ("\n{{ x" + ".a" * 5000 + " }}", 2, None, "nested too deeply"),
        ("\n{{ " + "7" * 5000 + " }}", 2, None, "Exceeds the limit"),
        ("x" * 64_001, 1, None, "longer than 64 kB"),
    ],
)
def test_a_fault_has_its_place(text: str, line: int, column: int | None, says: str) -> None:
    fault = check_template(text)
    assert fault is not None
    assert (fault.line, fault.column) == (line, column)
    assert says in fault.message
    assert fault.sentence.endswith(f": {fault.message}.")
    with pytest.raises(TemplateError, match="Your template cannot be used"):
        user_template(text)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "{% generation %}x{% endgeneration %}",
        "x{% for m in x %}{% break %}{% endfor %}",
        "{{ messages | tojson }}",
    ],
)
def test_what_transformers_takes_is_no_fault(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert check_template(text) is None
    write(tokenizer, text)


def test_every_template_of_the_catalog_is_faultless(registry: Registry) -> None:
    texts = [spec.prompt.template for spec in registry if spec.prompt.template is not None]
    assert len(texts) > 4
    assert [check_template(text) for text in texts] == [None] * len(texts)


@given(st.text(st.sampled_from("{}%#- \n\r'\"|.()[]xif=é𝒳*~"), max_size=30))
def test_a_faultless_template_compiles_and_a_fault_lies_in_the_text(text: str) -> None:
    fault = check_template(text)
    if fault is None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        assert _compile_jinja_template(text) is not None
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert 1 <= fault.line <= len(lines)
    assert fault.column is None or 1 <= fault.column <= len(lines[fault.line - 1]) + 1


def test_an_error_of_a_users_template_names_its_line(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match=r"^Your template fails in line 3: 'foo' is undefined\.$"):
        write(tokenizer, "a\n{% for m in messages %}\n{{ foo.bar }}{% endfor %}")
    with pytest.raises(TemplateError, match=r"fails in line 2: no system prompt here\.$"):
        write(tokenizer, "\n{{ raise_exception('no system prompt here') }}")


def test_a_users_template_cannot_reach_out_of_its_sandbox(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match=r"fails in line 1: access to attribute '__class__'"):
        write(tokenizer, "{{ ''.__class__.__mro__[1].__subclasses__() }}")


def test_an_endless_template_is_broken_off(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "DEADLINE_S", 0.1)
    before = sys.gettrace()
    with pytest.raises(TemplateError, match=r"^Your template takes longer than 0.1 seconds in line 2\.$"):
        write(tokenizer, "\n" + "{% for a in range(99999) %}" * 9 + "{% endfor %}" * 9)
    assert sys.gettrace() is before


def test_the_tracing_of_a_debugger_goes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    def watch(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        write(tokenizer, "x")
        assert sys.gettrace() is watch
    finally:
        sys.settrace(before)


def test_a_result_out_of_all_proportion_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match=r"writes 6 MB; 4 MB is the limit"):
        write(tokenizer, "{{ '가' * 2000000 }}")


@pytest.mark.parametrize("text", ["", "{# all of it #}"])
def test_writing_nothing_is_refused(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert check_template(text) is None
    with pytest.raises(TemplateError, match="writes nothing"):
        write(tokenizer, text)


def test_half_a_character_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match=r"half a character .*U\+D800 at place 2"):
        write(tokenizer, r"x{{ '\ud800' }}")


def test_the_models_own_template_says_why_it_refuses(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    used, _ = choose_template(registry.get("kullm3"), tokenizer)
    with pytest.raises(TemplateError, match=r"^KULLM3's chat template refuses these messages: .* turn 1 should be"):
        render(tokenizer, used, MESSAGES[1:], "KULLM3")

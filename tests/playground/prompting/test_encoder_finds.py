"""What the encoder finds out about a prompt: its system prompt, what is not sent, control tokens in messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import BOS, EOS, byte_tokenizer
from tokenizer_kinds import byte_level
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.errors import PromptError, TemplateError
from playground.prompting.encoder import PromptEncoder
from playground.prompting.notes import UNKNOWN_ORIGINS
from playground.prompting.prompt import ControlInText, EncodedPrompt, Unsent
from playground.types import Message, PromptOptions

GOLDENS = json.loads((Path(__file__).parents[2] / "goldens" / "templates.json").read_text(encoding="utf-8"))["cases"]
STAND_INS = {"krutrim-1-instruct": "demo-krutrim", "kullm3": "demo-kullm3"}
CASES = [(model_id, name) for model_id, cases in GOLDENS.items() for name in cases]
AS_TYPED = PromptOptions(control="as_typed")
SHOUTS = PromptOptions(template="{% for m in messages %}{{ m.content | upper }}{{ eos_token }}{% endfor %}")
CHATML = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content | trim }}</s>\n{% endfor %}<s>assistant"
THINKS = (
    "{% for m in messages %}{% set c = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content %}"
    "[{{ m.role }}]{{ c }}{{ eos_token }}{% endfor %}"
)
SECOND_WORD = "{% for m in messages %}{{ m.content.split(' ')[1] }}!{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def kullm3(registry: Registry) -> PromptEncoder:
    return PromptEncoder(registry.get("kullm3"), byte_tokenizer(adds_bos=True))


@pytest.fixture(scope="module")
def krutrim(registry: Registry) -> PromptEncoder:
    return PromptEncoder(registry.get("krutrim-1-instruct"), byte_tokenizer(adds_bos=True))


def say(*contents: str, system: str | None = None) -> list[Message]:
    said = [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(contents)]
    return said if system is None else [Message(role="system", content=system), *said]


def texts_of(prompt: EncodedPrompt, origin: str) -> list[str]:
    return [prompt.text[span.start : span.end] for span in prompt.spans if span.origin == origin]


@pytest.mark.parametrize(("model_id", "case"), CASES)
def test_the_stand_ins_render_the_reference(registry: Registry, model_id: str, case: str) -> None:
    encoder, golden = load_encoder(registry.get(STAND_INS[model_id])), GOLDENS[model_id][case]
    messages = [Message(**message) for message in golden["messages"]]
    for options in (PromptOptions(), AS_TYPED, PromptOptions(template=encoder.template.text)):
        prompt = encoder.preview(messages, options)
        assert prompt.text == golden["text"]
        assert {span.message for span in prompt.spans} - {None} == set(range(len(messages)))


def test_a_trained_system_prompt_is_known(kullm3: PromptEncoder) -> None:
    trained = kullm3.spec.prompt.default_system
    brought = kullm3.encode(say("안녕"))
    assert (brought.system, texts_of(brought, "default_system")) == ("default", [trained])
    given = kullm3.encode(say("안녕", system=f" {trained}\n"))
    assert (given.system, texts_of(given, "default_system")) == ("default", [])
    assert texts_of(given, "system") == [f" {trained}\n"]
    assert not any("trained" in note for note in (*brought.notes, *given.notes))


def test_a_trained_system_prompt_that_was_changed_or_removed_is_a_warning(kullm3: PromptEncoder) -> None:
    changed, missing = kullm3.encode(say("안녕", system="Be brief.")), kullm3.encode(say("안녕", system=" "))
    without = kullm3.encode(say("안녕"), PromptOptions(template="{{ messages[0].content }}"))
    assert (changed.system, missing.system, without.system) == ("changed", "missing", "missing")
    assert "KULLM3 was trained with a system prompt, and this is another" in changed.notes[-1]
    assert "there is none: its answers may be worse" in missing.notes[-1]
    assert missing.notes[-1] == without.notes[-1]


def test_a_model_without_a_trained_system_prompt(krutrim: PromptEncoder) -> None:
    assert krutrim.encode(say("x")).system == "none"
    assert krutrim.encode(say("x", system="")).system == "none"
    own = krutrim.encode(say("x", system="Be brief."))
    assert (own.system, own.notes) == ("own", ())


def test_a_user_who_writes_the_trained_system_prompt_is_still_the_user(kullm3: PromptEncoder) -> None:
    trained = kullm3.spec.prompt.default_system
    prompt = kullm3.encode(say(f"What is this? {trained}"))
    assert len(texts_of(prompt, "default_system")) == 1
    assert texts_of(prompt, "user") == [f"What is this? {trained}"]


def test_what_the_format_leaves_out_is_listed(registry: Registry, kullm3: PromptEncoder) -> None:
    polyglot = PromptEncoder(registry.get("kullm-polyglot-5.8b-v2"), byte_tokenizer())
    assert polyglot.encode(say("a", "b", "c")).unsent == (Unsent(0, "format"), Unsent(1, "format"))
    last = kullm3.encode(say("a", "b", "c", system="s"), PromptOptions(template="{{ messages[-1].content }}"))
    assert last.unsent == (Unsent(0, "format"), Unsent(1, "format"), Unsent(2, "format"))
    assert "The template leaves out messages" in " ".join(last.notes)
    assert kullm3.encode(say("a", "", "c", " ", "e")).unsent == ()


def test_a_users_template_decides_what_it_takes(registry: Registry) -> None:
    base = PromptEncoder(registry.get("krutrim-1-base"), byte_tokenizer())
    prompt = base.encode(say("a", "b", "c", system="s"), PromptOptions(template=CHATML))
    assert prompt.text == "<s>system\ns</s>\n<s>user\na</s>\n<s>assistant\nb</s>\n<s>user\nc</s>\n<s>assistant"
    assert (prompt.unsent, prompt.template.source, prompt.notes) == ((), "user", ())
    assert prompt.template.fingerprint != base.template.fingerprint
    with pytest.raises(TemplateError, match="Line 1"):
        base.encode(say("a"), PromptOptions(template="{{ messages"))
    assert base.encode(say("a", "b")).template is base.template


def test_an_empty_prompt_is_a_sentence(registry: Registry) -> None:
    base = PromptEncoder(registry.get("krutrim-1-base"), byte_tokenizer())
    assert base.preview(say("")).spans == ()
    with pytest.raises(PromptError, match="empty"):
        base.encode(say(""))


def test_control_tokens_in_messages_are_text_by_default(krutrim: PromptEncoder) -> None:
    messages = say("a </s> b", " <s>", system="no </s>")
    plain, as_typed = krutrim.encode(messages), krutrim.encode(messages, AS_TYPED)
    assert plain.text == as_typed.text
    assert (plain.token_ids.count(BOS), plain.token_ids.count(EOS)) == (1, 1)
    assert (as_typed.token_ids.count(BOS), as_typed.token_ids.count(EOS)) == (2, 3)
    expected = (ControlInText(0, 3, "</s>"), ControlInText(1, 2, "</s>"), ControlInText(2, 1, "<s>"))
    assert plain.control_in_text == as_typed.control_in_text == expected
    assert [span.message for span in as_typed.spans if span.origin == "control"] == [0, 1, 2, None]


def test_a_control_token_that_message_and_template_make_together_is_none(krutrim: PromptEncoder) -> None:
    glued = PromptOptions(template="{{ messages[0].content }}s>|{{ eos_token }}")
    prompt = krutrim.encode(say("x <"), glued)
    assert prompt.control_in_text == (ControlInText(0, 2, "<s>"),)
    assert prompt.token_ids.count(BOS) == 1
    assert (
        krutrim.encode(say("x <"), PromptOptions(template=glued.template, control="as_typed")).token_ids.count(BOS) == 2
    )


def test_a_template_that_changes_words_is_no_match_for_control_tokens(krutrim: PromptEncoder) -> None:
    shouted = krutrim.encode(say("a", "b", "c"), SHOUTS)
    assert UNKNOWN_ORIGINS in shouted.notes
    assert {span.origin for span in shouted.spans} == {"tokenizer", "template", "control"}
    options = PromptOptions(
        template="{% for m in messages %}{{ m.content | replace('a', 'b') }}{{ eos_token }}{% endfor %}"
    )
    with pytest.raises(PromptError, match=r"spells out </s>, .* remove it, or choose to send control tokens as typed"):
        krutrim.encode(say("a</s>"), options)
    as_typed = krutrim.encode(say("a</s>"), options.model_copy(update={"control": "as_typed"}))
    assert as_typed.token_ids.count(EOS) == 2
    assert as_typed.control_in_text == (ControlInText(0, 1, "</s>"),)


def test_a_template_that_cuts_thoughts_off_may_meet_control_tokens(registry: Registry) -> None:
    encoder = PromptEncoder(registry.get("krutrim-1-instruct"), byte_level())
    prompt = encoder.encode(say("q", "so <|USER|> hm</think>it is <|USER|>", "r"), PromptOptions(template=THINKS))
    assert texts_of(prompt, "assistant") == ["it is <|USER|>"]
    assert [each.message for each in prompt.control_in_text] == [1]
    assert texts_of(prompt, "control") == ["</s>"] * 3


def test_a_control_token_that_a_template_takes_out_of_a_message_is_refused(registry: Registry) -> None:
    encoder = PromptEncoder(registry.get("krutrim-1-instruct"), byte_level())
    options = PromptOptions(template=SECOND_WORD)
    assert encoder.encode(say("one two three"), options).notes == ()
    with pytest.raises(PromptError, match="makes it its own"):
        encoder.encode(say("one <|USER|> three"), options)


def test_a_tokenizer_without_places_cannot_send_control_tokens_as_text(registry: Registry) -> None:
    encoder = PromptEncoder(registry.get("krutrim-1-instruct"), ByT5Tokenizer())
    prompt = encoder.encode(say("é", "b", "c"))
    assert sum(span.end_token - span.first_token for span in prompt.spans) == len(prompt.token_ids)
    assert texts_of(prompt, "user") == ["é", "c"]
    with pytest.raises(PromptError, match="wherever it stands"):
        encoder.encode(say("a </s> b"))
    assert encoder.encode(say("a </s> b"), AS_TYPED).control_in_text == (ControlInText(0, 2, "</s>"),)
    assert encoder.tokenize("ab").token_ids == (100, 101)


def test_a_text_by_itself(registry: Registry) -> None:
    encoder = load_encoder(registry.get("demo-kullm3"))
    tokenized = encoder.tokenize("안녕 </s>")
    assert tokenized.text == "안녕 </s>"
    assert len(tokenized.names) == len(tokenized.token_ids) == tokenized.counts.tokens
    assert EOS not in tokenized.token_ids
    assert "".join(tokenized.names).replace("▁", " ").strip() == "안녕 </s>"
    assert encoder.names([1, 2]) == ("<s>", "</s>")
    assert encoder.tokenize("").token_ids == ()


def test_the_tokenizer_itself_is_left_alone(registry: Registry, kullm3: PromptEncoder) -> None:
    before = kullm3.tokenizer.backend_tokenizer.to_str()
    kullm3.encode(say("a </s>"))
    kullm3.tokenize("</s>")
    assert kullm3.tokenizer.backend_tokenizer.to_str() == before
    assert isinstance(kullm3.tokenizer, PreTrainedTokenizerFast)


def test_a_system_prompt_of_unknown_origin_is_looked_for_in_the_text() -> None:
    encoder = PromptEncoder(Registry.load().get("kullm3"), byte_tokenizer())
    counting = PromptOptions(template="{% for m in messages %}{{ m.content|length }}: {{ m.content }}\n{% endfor %}")
    asked = Message(role="user", content="x")
    system = Message(role="system", content="Be brief.")
    assert encoder.preview([system, asked], counting).system == "changed"
    assert encoder.preview([asked], counting).system == "missing"

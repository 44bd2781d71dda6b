"""Messages to prompts: the templates of every model, special tokens, what a format cannot take, the context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import BOS, EOS, byte_tokenizer
from transformers import PreTrainedTokenizerFast

from model_registry.registry import Registry
from playground.errors import ContextFullError, PromptError, TemplateError
from playground.prompting.encoder import PromptEncoder
from playground.types import Message

GOLDENS = json.loads((Path(__file__).parents[2] / "goldens" / "templates.json").read_text(encoding="utf-8"))["cases"]
CASES = [(model_id, name) for model_id, cases in GOLDENS.items() for name in cases]


def say(*contents: str) -> list[Message]:
    """A conversation that starts with the user."""
    return [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(contents)]


@pytest.mark.parametrize(("model_id", "case"), CASES)
def test_the_rendered_text_is_the_reference(
    registry: Registry, tokenizer: PreTrainedTokenizerFast, model_id: str, case: str
) -> None:
    golden = GOLDENS[model_id][case]
    prompt = PromptEncoder(registry.get(model_id), tokenizer).preview([Message(**m) for m in golden["messages"]])
    assert prompt.text == golden["text"]
    assert golden["add_generation_prompt"] == (golden["messages"][-1]["role"] == "user")


def test_krutrim_gets_the_tokenizers_bos_on_top(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptEncoder(registry.get("krutrim-1-instruct"), tokenizer).encode(say("नमस्ते"))
    assert prompt.token_ids[0] == BOS
    assert prompt.token_ids.count(BOS) == 1
    assert tokenizer.decode(prompt.token_ids[1:]) == prompt.text == "<|USER|> नमस्ते\n<|RESPONSE|>\n"


def test_kullm3_has_exactly_the_bos_of_its_text(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptEncoder(registry.get("kullm3"), tokenizer).encode(say("안녕", "안녕하세요", "잘 지내?"))
    assert prompt.text.count("<s>") == prompt.token_ids.count(BOS) == 2
    assert prompt.token_ids[0] == BOS
    assert prompt.token_ids.count(EOS) == 1
    assert tokenizer.decode(prompt.token_ids) == prompt.text


def test_the_default_system_prompt_of_the_catalog_is_the_templates_own(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = registry.get("kullm3")
    encoder = PromptEncoder(spec, tokenizer)
    said = [Message(role="system", content=spec.prompt.default_system), *say("안녕")]
    assert encoder.encode(said).text == encoder.encode(say("안녕")).text


def test_where_the_template_came_from(registry: Registry) -> None:
    own = byte_tokenizer(adds_bos=False)
    own.chat_template = "OWN {{ messages[-1].content }}"
    user = registry.get("kullm3").prompt.model_copy(update={"template_source": "user", "template": "U"})
    by_user = registry.get("kullm3").model_copy(update={"prompt": user})
    seen = {
        name: PromptEncoder(spec, own).encode(say("x"))
        for name, spec in [(i, registry.get(i)) for i in ("kullm3", "krutrim-1-instruct", "krutrim-1-base")]
    }
    assert {name: prompt.template.source for name, prompt in seen.items()} == {
        "kullm3": "tokenizer",
        "krutrim-1-instruct": "card",
        "krutrim-1-base": "none",
    }
    assert seen["kullm3"].text == "OWN x"
    assert seen["krutrim-1-instruct"].text == "<|USER|> x\n<|RESPONSE|>\n"
    assert PromptEncoder(by_user, own).encode(say("x")).template.source == "user"


def test_a_named_template_among_several_is_the_default_one(registry: Registry) -> None:
    own = byte_tokenizer(adds_bos=False)
    own.chat_template = {"tool_use": "TOOLS", "default": "DEFAULT"}
    assert PromptEncoder(registry.get("kullm3"), own).encode(say("x")).text == "DEFAULT"


def test_without_any_template_the_catalog_is_asked_for_one(registry: Registry) -> None:
    with pytest.raises(TemplateError, match="add `template_file`"):
        PromptEncoder(registry.get("smollm2-135m-instruct"), byte_tokenizer(adds_bos=False))


def test_the_polyglot_models_see_the_last_instruction_only(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = PromptEncoder(registry.get("kullm-polyglot-5.8b-v2"), tokenizer)
    expected = (
        "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### 명령어:\n한국의 수도는?\n\n### 응답:\n"
    )
    assert encoder.encode(say("한국의 수도는?")).text == expected
    assert encoder.encode(say("한국의 수도는?")).notes == ()
    later = encoder.encode(say("안녕", "네", "한국의 수도는?"))
    assert later.text == expected
    assert "earlier messages are not sent" in later.notes[0]


def test_an_instruction_of_a_polyglot_model_may_bring_an_input(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = PromptEncoder(registry.get("kullm-polyglot-12.8b-v2"), tokenizer)
    assert encoder.encode(say("요약하세요.\n\n### 입력:\n긴 글")).text == (
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
        "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### 명령어:\n요약하세요.\n\n### 입력:\n긴 글\n\n### 응답:\n"
    )


def test_a_single_turn_model_answers_the_user_only(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="the last one here is the assistant's"):
        PromptEncoder(registry.get("kullm-polyglot-5.8b-v2"), tokenizer).encode(say("a", "b"))


def test_where_the_tokenizer_should_have_a_template_and_has_none_it_is_said(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt = PromptEncoder(registry.get("kullm3"), tokenizer).encode(say("안녕"))
    assert prompt.template.source == "card"
    assert prompt.notes == ("The tokenizer's files have no chat template: the catalog's is used.",)


def test_a_base_model_continues_the_text(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptEncoder(registry.get("krutrim-1-base"), tokenizer).encode(say(" Once ", "upon", " a\n"))
    assert prompt.text == " Once upon a\n"
    assert "no chat format" in prompt.notes[0]


@pytest.mark.parametrize("model_id", ["krutrim-1-base", "kullm-polyglot-5.8b-v2"])
def test_a_system_prompt_without_a_place_is_refused(
    registry: Registry, tokenizer: PreTrainedTokenizerFast, model_id: str
) -> None:
    with pytest.raises(PromptError, match="no place for a system prompt"):
        PromptEncoder(registry.get(model_id), tokenizer).encode([Message(role="system", content="s"), *say("x")])
    with pytest.raises(PromptError, match="no place for a system prompt"):
        PromptEncoder(registry.get(model_id), tokenizer).encode([*say("x"), Message(role="system", content="s")])


def test_roles_that_do_not_alternate_are_a_sentence(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    twice = [Message(role="user", content="a"), Message(role="user", content="b")]
    with pytest.raises(TemplateError, match=r"KULLM3's chat template refuses .* turn 2 should be from the assistant"):
        PromptEncoder(registry.get("kullm3"), tokenizer).encode(twice)


def test_no_message_is_a_sentence(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="no message to answer"):
        PromptEncoder(registry.get("kullm3"), tokenizer).encode([])


def test_a_template_cannot_reach_out_of_its_sandbox(registry: Registry, tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = registry.get("kullm3").prompt.model_copy(
        update={"template_source": "user", "template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}
    )
    encoder = PromptEncoder(registry.get("kullm3").model_copy(update={"prompt": prompt}), tokenizer)
    with pytest.raises(TemplateError, match="is unsafe"):
        encoder.encode(say("x"))


def test_a_prompt_longer_than_the_context_says_by_how_much(
    registry: Registry, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = registry.get("krutrim-1-base")
    encoder = PromptEncoder(spec, tokenizer)
    full = "x" * (spec.context_length - 2)  # BOS and one token of an answer fill the rest
    assert encoder.encode(say(full)).room == 1
    with pytest.raises(ContextFullError, match=r"1 token too long for Krutrim-1 Base.*4,096 of 4,096") as caught:
        encoder.encode(say(full + "x"))
    assert caught.value.excess == 1
    assert encoder.preview(say(full + "xyz")).room == -2

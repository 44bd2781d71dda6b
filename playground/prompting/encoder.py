"""Messages to the exact text and token ids that one model receives.

The only way from a conversation to a prompt: the engines send what it returns, the preview shows what it returns.
Knows the tokenizer and the catalog's facts, no model and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, cast

from model_registry.spec import ModelSpec
from playground.errors import PromptError, TemplateError
from playground.prompting.budget import require_room
from playground.prompting.prompt import EncodedPrompt, Span, TemplateUsed
from playground.types import Message, TemplateSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptEncoder:
    """One model's way to write a prompt."""

    def __init__(self, spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self._template, self._source, self._origin_notes = _choose_template(spec, tokenizer)

    def encode(self, messages: Sequence[Message]) -> EncodedPrompt:
        """The prompt that asks for the next answer (or, where the last message is an answer, the conversation so far).

        Raises:
            PromptError: no message, or a system message where the format has no place for one.
            TemplateError: the template refuses the messages, such as roles that do not alternate.
            ContextFullError: not one token of an answer would fit behind it.
        """
        prompt = self.preview(messages)
        require_room(self.spec, prompt)
        return prompt

    def preview(self, messages: Sequence[Message]) -> EncodedPrompt:
        """As `encode`, for showing: a prompt of any length, whose `room` may be negative."""
        sent, notes = self._what_the_format_takes(messages)
        text = self._render(sent)
        ids = self.tokenizer(text, add_special_tokens=self.spec.prompt.add_special_tokens, verbose=False)["input_ids"]
        notes = (*self._origin_notes, *notes)
        template = TemplateUsed(self._source, self._template, sha256(self._template.encode()).hexdigest())
        spans = (Span(0, len(text), 0, len(ids), "template"),)
        offsets = tuple((0, 0) for _ in ids)
        return EncodedPrompt(text, tuple(ids), offsets, spans, template, self.spec.context_length, notes=notes)

    def _what_the_format_takes(self, messages: Sequence[Message]) -> tuple[list[Message], tuple[str, ...]]:
        if not messages:
            raise PromptError("There is no message to answer: type a prompt.")
        name, format_ = self.spec.name, self.spec.prompt
        if not format_.system_role and any(message.role == "system" for message in messages):
            raise PromptError(f"{name} has no place for a system prompt in its format: leave it empty.")
        if not format_.multi_turn and messages[-1].role != "user":
            raise PromptError(f"{name} answers a user's message, and the last one here is the assistant's.")
        if not format_.multi_turn and len(messages) > 1:
            return [messages[-1]], (f"{name} knows single turns only: the earlier messages are not sent.",)
        if self.spec.kind == "base":
            return list(messages), (f"{name} has no chat format: it continues the text of the messages, joined.",)
        return list(messages), ()

    def _render(self, messages: list[Message]) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [message.model_dump() for message in messages],
                chat_template=self._template,
                add_generation_prompt=messages[-1].role != "assistant",
                tokenize=False,
            )
        except Exception as error:  # a template is a program of whoever wrote it: anything may come out of it
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise TemplateError(f"{self.spec.name}'s chat template refuses these messages: {reason}.") from error
        return cast(str, text)


def _choose_template(
    spec: ModelSpec, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, TemplateSource, tuple[str, ...]]:
    """The template, where it comes from, and a note where that is not where it should come from."""
    own = tokenizer.chat_template
    if isinstance(own, dict):  # some tokenizers have several, by purpose
        own = own.get("default")
    if spec.prompt.template_source == "tokenizer" and isinstance(own, str):
        return own, "tokenizer", ()
    if spec.prompt.template is None:
        raise TemplateError(
            f"The tokenizer of {spec.name} has no chat template, and its catalog entry names none: "
            "add `template_file` and `template_source` under [prompt]."
        )
    if spec.prompt.template_source == "tokenizer":
        return spec.prompt.template, "card", ("The tokenizer's files have no chat template: the catalog's is used.",)
    return spec.prompt.template, spec.prompt.template_source, ()

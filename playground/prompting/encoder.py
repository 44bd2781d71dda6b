"""Messages to the exact text and token ids that one model receives.

The only way from a conversation to a prompt: the engines send what it returns, the preview shows what it returns.
Knows the tokenizer and the catalog's facts, no model and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from model_registry.spec import ModelSpec
from playground.errors import PromptError
from playground.prompting import notes
from playground.prompting.budget import leave_out_oldest, require_room
from playground.prompting.control import Encoded, TextEncoder
from playground.prompting.origins import Part, Rendered, trace
from playground.prompting.prompt import ControlInText, EncodedPrompt, TemplateUsed, Unsent
from playground.prompting.spans import make_spans, written_by
from playground.prompting.templates import choose_template, render, user_template
from playground.types import Message, PromptOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AS_IT_IS = PromptOptions()


class PromptEncoder:
    """One model's way to write a prompt. Threads may share it.

    template: the model's own.
    """

    def __init__(self, spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.template, self._template_notes = choose_template(spec, tokenizer)
        self._texts = TextEncoder(tokenizer)
        self._typed = self.template

    def encode(
        self,
        messages: Sequence[Message],
        options: PromptOptions = AS_IT_IS,
        answer_tokens: int = 1,
        most: int | None = None,
    ) -> EncodedPrompt:
        """The prompt that asks for the next answer (or, where the last message is an answer, the conversation so far).

        Args:
            options: the user's decisions.
            answer_tokens: the longest answer that is asked for; with "drop_oldest" room is made for it.
            most: tokens of prompt and answer that the engine can hold, where that is less than the context.

        Raises:
            PromptError: no message; a system message where the format has no place for one; a control token in a
                message that cannot be sent as plain text.
            TemplateError: the template refuses the messages, such as roles that do not alternate.
            ContextFullError: not one token of an answer would fit behind it.
        """
        prompt = self.preview(messages, options, answer_tokens, most)
        require_room(self.spec, prompt)
        return prompt

    def preview(
        self,
        messages: Sequence[Message],
        options: PromptOptions = AS_IT_IS,
        answer_tokens: int = 1,
        most: int | None = None,
    ) -> EncodedPrompt:
        """As `encode`, for showing: a prompt of any length, whose `room` may be negative."""
        taken = self._what_the_format_takes(messages, options)
        write = partial(self._write, messages, taken, self._template_for(options))
        if options.when_full == "refuse":
            return write(taken)
        holds = self.spec.context_length if most is None else min(most, self.spec.context_length)
        return leave_out_oldest(write, messages, taken, holds - answer_tokens)

    def _what_the_format_takes(self, messages: Sequence[Message], options: PromptOptions) -> list[int]:
        """The numbers of the messages to send. A user's template decides for itself what it takes."""
        if not messages:
            raise PromptError("There is no message to answer: type a prompt.")
        every = list(range(len(messages)))
        if options.template is not None:
            return every
        name, format_ = self.spec.name, self.spec.prompt
        if not format_.system_role and any(message.role == "system" for message in messages):
            raise PromptError(f"{name} has no place for a system prompt in its format: leave it empty.")
        if not format_.multi_turn and messages[-1].role != "user":
            raise PromptError(f"{name} answers a user's message, and the last one here is the assistant's.")
        return every if format_.multi_turn else every[-1:]

    def _template_for(self, options: PromptOptions) -> TemplateUsed:
        if options.template is None:
            return self.template
        typed = self._typed  # one value, whatever another thread puts there meanwhile
        if typed.source != "user" or typed.text != options.template:
            typed = self._typed = user_template(options.template)
        return typed

    def _write(
        self, messages: Sequence[Message], taken: Sequence[int], template: TemplateUsed, sent: Sequence[int]
    ) -> EncodedPrompt:
        """The prompt of the messages with the numbers `sent`, out of those that the format has a place for."""
        rendered = trace(
            lambda some: render(self.tokenizer, template, some, self.spec.name),
            [messages[number] for number in sent],
            template.text,
        )
        parts = [part if part.message is None else replace(part, message=sent[part.message]) for part in rendered.parts]
        encoded = self._texts.encode(rendered.text, add_special_tokens=self.spec.prompt.add_special_tokens)
        spans = make_spans(rendered.text, parts, messages, self.spec.prompt.default_system.strip(), encoded)
        system = notes.system_prompt(self.spec, messages, spans)
        unsent = _unsent(messages, taken, sent, rendered)
        about = (
            *(self._template_notes if template is self.template else ()),
            *notes.about_format(self.spec, unsent, own=template is self.template),
            *notes.about_system_prompt(self.spec, system),
            *notes.about_dropped(unsent),
            *(() if rendered.known else (notes.UNKNOWN_ORIGINS,)),
        )
        return EncodedPrompt(
            text=rendered.text,
            token_ids=encoded.ids,
            offsets=encoded.offsets,
            spans=spans,
            template=template,
            context_length=self.spec.context_length,
            system=system,
            unsent=unsent,
            control_in_text=tuple(_spelled_out(parts, encoded, self._texts.control)),
            notes=about,
        )


def _unsent(
    messages: Sequence[Message], taken: Sequence[int], sent: Sequence[int], rendered: Rendered
) -> tuple[Unsent, ...]:
    """Messages that are not in the prompt, with why; one of white space only is not missed."""
    written = {sent[part.message] for part in rendered.parts if part.message is not None}
    unwritten = {number for number in sent if number not in written and messages[number].content.strip()}
    missed = unwritten if rendered.known else set()
    dropped, format_ = set(taken) - set(sent), set(range(len(messages))) - set(taken) | missed
    return tuple(Unsent(number, "dropped" if number in dropped else "format") for number in sorted(dropped | format_))


def _spelled_out(parts: Sequence[Part], encoded: Encoded, names: Mapping[int, str]) -> Iterator[ControlInText]:
    for control, part in written_by(parts, encoded.controls.values()):
        if part is not None and part.message is not None:
            start = part.offset + max(0, control.start - part.start)
            yield ControlInText(part.message, start, names[control.token_id])

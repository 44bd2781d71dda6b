"""Messages to the exact text and token ids that one model receives.

The only way from a conversation to a prompt: the engines send what it returns, the preview shows what it returns.
Knows the tokenizer and the catalog's facts, no model and no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from model_registry.spec import ModelSpec
from playground.errors import PromptError
from playground.prompting import notes, tokens
from playground.prompting.budget import leave_out_oldest, require_room
from playground.prompting.control import Encoded, TextEncoder
from playground.prompting.origins import Rendered, trace
from playground.prompting.prompt import (
    ControlInText,
    EncodedPrompt,
    Piece,
    SystemPrompt,
    TemplateUsed,
    TokenCounts,
    TokenizedText,
    Unsent,
)
from playground.prompting.slow import SlowTextEncoder
from playground.prompting.spans import make_spans
from playground.prompting.templates import choose_template, render, user_template
from playground.prompting.typed import Render, UnguardedError, as_plain_text, spelled_out
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
        is_fast = getattr(tokenizer, "backend_tokenizer", None) is not None
        kind = TextEncoder if is_fast else SlowTextEncoder
        self._texts = kind(tokenizer, add_special_tokens=spec.prompt.add_special_tokens)
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
            PromptError: no message, or nothing in it; a system message where the format has no place for one; a
                control token in a message that cannot be sent as plain text.
            TemplateError: the template refuses the messages, such as roles that do not alternate.
            ContextFullError: not one token of an answer would fit behind it.
        """
        prompt = self.preview(messages, options, answer_tokens, most)
        if not prompt.token_ids:
            raise PromptError("This prompt is empty, and a model cannot continue nothing: type something.")
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
        write = partial(self._write, messages, options, taken)
        if options.when_full == "refuse":
            return write(taken)
        holds = self.spec.context_length if most is None else min(most, self.spec.context_length)
        return leave_out_oldest(write, messages, taken, holds, answer_tokens)

    def tokenize(self, text: str) -> TokenizedText:
        """A text by itself: as plain text, with nothing around it."""
        ids, offsets = self._texts.plain_ids(text)
        return TokenizedText(
            text,
            ids,
            self.names(ids),
            tokens.pieces(text, ids, offsets, self.tokenizer),
            tokens.counts(text, ids, self.tokenizer),
            tokens.byte_ids(ids, self.tokenizer),
        )

    def pieces(self, prompt: EncodedPrompt) -> tuple[Piece, ...]:
        """A prompt's tokens, as few together as make whole characters."""
        return tokens.pieces(prompt.text, prompt.token_ids, prompt.offsets, self.tokenizer, self._texts.control)

    def counts(self, prompt: EncodedPrompt, message: int | None = None) -> TokenCounts:
        """What a prompt's text costs: all of it, or what one of its messages wrote."""
        if message is None:
            return tokens.counts(prompt.text, prompt.token_ids, self.tokenizer)
        spans = [span for span in prompt.spans if span.message == message]
        text = "".join(prompt.text[span.start : span.end] for span in spans)
        ids = [token for span in spans for token in prompt.token_ids[span.first_token : span.end_token]]
        return tokens.counts(text, ids, self.tokenizer)

    def names(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """The vocabulary's own spelling of each token."""
        return tokens.names(token_ids, self.tokenizer)

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
        self, messages: Sequence[Message], options: PromptOptions, taken: Sequence[int], sent: Sequence[int]
    ) -> EncodedPrompt:
        """The prompt of the messages with the numbers `sent`, out of those that the format has a place for."""
        template = self._template_for(options)
        chosen = {number: messages[number] for number in sent}
        write = partial(self._render, template)
        rendered = trace(write, list(chosen.values()), template.text).numbered(sent)
        encoded = self._texts.encode(rendered.text)
        typed = spelled_out(rendered, encoded, chosen, self._texts.control)
        if options.control == "plain":
            encoded = self._as_plain_text(rendered, encoded, chosen, typed, write)
        spans = make_spans(rendered.text, rendered.parts, messages, self.spec.prompt.default_system.strip(), encoded)
        system = notes.system_prompt(self.spec, chosen, spans, rendered)
        unsent = _unsent(messages, taken, chosen, rendered)
        return EncodedPrompt(
            text=rendered.text,
            token_ids=encoded.ids,
            offsets=encoded.offsets,
            spans=spans,
            template=template,
            context_length=self.spec.context_length,
            system=system,
            unsent=unsent,
            control_in_text=typed,
            notes=self._notes(options, system, unsent, rendered),
        )

    def _render(self, template: TemplateUsed, messages: Sequence[Message]) -> str:
        return render(self.tokenizer, template, messages, self.spec.name)

    def _as_plain_text(
        self,
        rendered: Rendered,
        encoded: Encoded,
        sent: Mapping[int, Message],
        typed: Sequence[ControlInText],
        write: Render,
    ) -> Encoded:
        try:
            return as_plain_text(self._texts, rendered, encoded, sent, typed, write)
        except UnguardedError as error:
            raise PromptError(
                f"A message spells out {error.token}, a control token of {self.spec.name}, and it cannot be sent as "
                f"plain text, because {error.reason}: remove it, or choose to send control tokens as typed."
            ) from error

    def _notes(
        self, options: PromptOptions, system: SystemPrompt, unsent: Sequence[Unsent], rendered: Rendered
    ) -> tuple[str, ...]:
        own = options.template is None
        return (
            *(self._template_notes if own else ()),
            *notes.about_format(self.spec, unsent, own=own),
            *notes.about_system_prompt(self.spec, system),
            *notes.about_dropped(unsent),
            *(() if rendered.known else (notes.UNKNOWN_ORIGINS,)),
        )


def _unsent(
    messages: Sequence[Message], taken: Sequence[int], sent: Mapping[int, Message], rendered: Rendered
) -> tuple[Unsent, ...]:
    """Messages that are not in the prompt, with why; one of white space only is not missed."""
    written = {part.message for part in rendered.parts}
    unwritten = {number for number, message in sent.items() if number not in written and message.content.strip()}
    missed = unwritten if rendered.known else set()
    dropped, format_ = set(taken) - set(sent), set(range(len(messages))) - set(taken) | missed
    return tuple(Unsent(number, "dropped" if number in dropped else "format") for number in sorted(dropped | format_))

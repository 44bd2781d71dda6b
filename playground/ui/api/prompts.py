"""A prompt and a tokenized text as plain JSON: all that the page shows of them, and the numbers behind it.

Knows no endpoint and no gradio. Called by `endpoints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from playground.prompting.budget import budget
from playground.prompting.prompt import EncodedPrompt, Piece, Span, TokenCounts
from playground.types import Message, PromptOptions

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder


def rendered(
    encoder: PromptEncoder, messages: Sequence[Message], options: PromptOptions, answer_tokens: int
) -> dict[str, Any]:
    """Everything that is known of a prompt before it is sent. May take a second: call it in a thread.

    answer_tokens: the longest answer that is wished for. Raises PlaygroundError.
    """
    prompt = encoder.preview(messages, options, answer_tokens)
    return {
        "model_id": encoder.spec.id,
        "text": prompt.text,
        "token_ids": prompt.token_ids,
        "spans": _parts(prompt.text, prompt.token_ids, prompt.spans),
        "pieces": _parts(prompt.text, prompt.token_ids, encoder.pieces(prompt)),
        "counts": _counts(encoder.counts(prompt)),
        "budget": asdict(budget(prompt, answer_tokens)),
        "template": asdict(prompt.template),
        "template_source": prompt.template.source,
        **_known(prompt),
    }


def _known(prompt: EncodedPrompt) -> dict[str, Any]:
    return {
        "system": prompt.system,
        "unsent": [asdict(each) for each in prompt.unsent],
        "control_in_text": [asdict(each) for each in prompt.control_in_text],
        "notes": prompt.notes,
        "context_length": prompt.context_length,
        "room": prompt.room,
    }


def tokenized(encoder: PromptEncoder, text: str) -> dict[str, Any]:
    """A text as the model's tokens, no template around it. May take a second: call it in a thread."""
    found = encoder.tokenize(text)
    return {
        "model_id": encoder.spec.id,
        "text": found.text,
        "token_ids": found.token_ids,
        "names": found.names,
        "pieces": _parts(found.text, found.token_ids, found.pieces),
        "counts": _counts(found.counts),
    }


def _parts(text: str, token_ids: Sequence[int], parts: Iterable[Span | Piece]) -> list[dict[str, Any]]:
    """Each with its text and its tokens: those of all parts, joined, are the whole."""
    return [
        {
            **(part._asdict() if isinstance(part, Piece) else asdict(part)),
            "text": text[part.start : part.end],
            "token_ids": token_ids[part.first_token : part.end_token],
        }
        for part in parts
    ]


def _counts(counts: TokenCounts) -> dict[str, Any]:
    return {
        **asdict(counts),
        "tokens_per_character": counts.tokens_per_character,
        "byte_share": counts.byte_share,
    }

"""How much of a model's context a prompt takes. Called by the encoder and by whoever limits an answer."""

from __future__ import annotations

from model_registry.spec import ModelSpec
from playground.errors import ContextFullError
from playground.prompting.prompt import EncodedPrompt


def require_room(spec: ModelSpec, prompt: EncodedPrompt) -> None:
    """Raise ContextFullError unless at least one token of an answer fits behind the prompt."""
    excess = 1 - prompt.room
    if excess > 0:
        tokens = "1 token" if excess == 1 else f"{excess:,} tokens"
        raise ContextFullError(
            f"This prompt is {tokens} too long for {spec.name}: it takes {len(prompt.token_ids):,} of "
            f"{prompt.context_length:,} tokens and leaves no room for an answer. Shorten it, or clear the history.",
            excess,
        )

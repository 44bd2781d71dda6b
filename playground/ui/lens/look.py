"""One panel's lens: what the model would receive for what is typed, or did receive, as its view wants it.

Every error becomes a sentence in its place. Knows no gradio component. Called by the lens' handlers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from playground.errors import PlaygroundError
from playground.prompting.budget import budget
from playground.types import EndpointUse, Message, PromptOptions, SentAs, half_character
from playground.ui.lens import lens_view, token_view
from playground.ui.lens.parts import Seen, Stage, going_words
from playground.ui.state import PanelState

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool
    from playground.prompting.encoder import PromptEncoder

Mode = Literal["Prompt", "Tokens", "Template"]

PATIENCE_S = 3.0
"""Seconds before a preview gives up waiting for a tokenizer, so that one panel never holds up another's."""

log = logging.getLogger(__name__)


class Subject(NamedTuple):
    """What is looked at: a request that was made, or the one that Send would make; the server that it is for, if it is
    for one, and how that one is given prompts, as far as it is known."""

    stage: Stage
    model_id: str
    messages: Sequence[Message]
    options: PromptOptions
    answer_tokens: int
    endpoint: EndpointUse | None = None
    sent_as: SentAs | None = None


def subject(
    state: PanelState,
    model_id: str,
    system: str,
    options: PromptOptions,
    answer_tokens: int,
    typed: str,
    endpoint: EndpointUse | None = None,
    sent_as: SentAs | None = None,
) -> Subject | None:
    """What is typed, if anything is; else the last request; None if there is none.

    While an answer is being given, what it has said so far is in the prompt that is being typed.
    """
    last = state.last
    if last and not typed.strip():
        request = last.request
        stage: Stage = "answering" if last.is_open else "answered"
        longest = request.sampling.max_new_tokens
        was = request.endpoint, last.sent_as
        return Subject(stage, request.model_id, request.messages, request.options, longest, *was)
    if not typed.strip():
        return None
    return Subject("typing", model_id, state.messages(system, typed), options, answer_tokens, endpoint, sent_as)


async def render(pool: Pool, asked: Subject, mode: Mode, with_ids: bool, every_turn: bool) -> str:
    """HTML of one panel's lens. `with_ids` is for the text, `every_turn` for the tokens."""
    for message in asked.messages:
        if sentence := half_character(message.content):
            return lens_view.error(f"This cannot be sent: {sentence}.")
    try:
        encoder = await asyncio.wait_for(pool.encoder(asked.model_id), PATIENCE_S)
        return await asyncio.to_thread(_draw, encoder, asked, mode, with_ids, every_turn)
    except TimeoutError:
        return lens_view.empty("The tokenizer is still being loaded. Type on to try again.")
    except PlaygroundError as error:
        return lens_view.error(str(error))
    except Exception:
        log.exception("preview of %s", asked.model_id)
        return lens_view.error("Unexpected error in the preview: the log has the details.")


def _draw(encoder: PromptEncoder, asked: Subject, mode: Mode, with_ids: bool, every_turn: bool) -> str:
    prompt = encoder.preview(asked.messages, asked.options, asked.answer_tokens)
    going = going_words(asked.endpoint.address, asked.sent_as, asked.stage) if asked.endpoint else ""
    is_exact = asked.sent_as != "messages"
    seen = Seen(encoder.spec.name, asked.messages, asked.options, prompt, asked.stage, going, is_exact)
    typed = encoder.counts(prompt, seen.last)
    shares = budget(prompt, asked.answer_tokens)
    if mode == "Tokens":
        folded = token_view.folded(seen, shares, every_turn)
        boxes = token_view.boxes(seen, encoder.pieces(prompt), encoder.names, folded)
        body = lens_view.token_body(seen, boxes, encoder.counts(prompt), typed)
    else:
        body = lens_view.text_body(seen, encoder.names, with_ids)
    return lens_view.lens(seen, shares, asked.answer_tokens, typed, body)

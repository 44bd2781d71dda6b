"""From values to what the browser shows: pure functions that write chatbot messages and HTML.

Every text of a model, a user or an error goes through `verbatim`, so it is shown to the character and never rendered.
Knows no gradio component and no engine. Called by the handlers.
"""

from __future__ import annotations

import html
import math
import re
from typing import Any

from playground.types import (
    AdapterUse,
    EndpointUse,
    FinishReason,
    LoadProgress,
    LoadStage,
    SentAs,
    Timings,
    Usage,
    Waiting,
)
from playground.ui.state import PanelState, Turn

ChatMessages = list[dict[str, Any]]

ENDINGS: dict[FinishReason, str] = {
    "stop": "ended by itself",
    "length": "length limit",
    "abort": "stopped",
    "error": "failed",
}
STAGES: dict[LoadStage, str] = {
    "waiting": "Waiting for its turn to load",
    "download": "Downloading",
    "weights": "Loading weights",
    "start": "Starting the engine",
    "adapter": "Attaching the adapter",
}
WAYS: dict[SentAs, str] = {
    "token_ids": "as token ids",
    "text": "as text",
    "messages": "as messages: the server's own template",
}
"""How a server was given the prompt."""

SHOWN = {ord("\r"): "&#13;", 0: "\u2400", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}

UNSENT = '<div class="unsent">not sent any more: the context was full</div>'


def verbatim(text: str) -> str:
    """`text` as HTML whose text content is `text`, but for the two things that no HTML can carry.

    A carriage return is written as a reference, for it would else come out as a newline. NUL, which browsers drop, is
    shown as its picture, U+2400, and half a character as U+FFFD; whoever copies gets what is shown. All other control
    characters come through as they are.
    """
    return html.escape(text).translate(SHOWN)


def chat(state: PanelState, waited_s: float = 0.0, progress: Waiting | LoadProgress | None = None) -> ChatMessages:
    """The panel's turns as Chatbot messages: the prompt, then the answer and a line about it.

    The answer is a part of its own that only grows, so that an update sends what is new and no more; content is
    always parts, because Gradio strips indentation from plain strings. A turn that the last prompt left out is marked.
    """
    messages: ChatMessages = []
    unsent = state.unsent
    for place, turn in enumerate(state.turns):
        mark = [_part(UNSENT)] if place in unsent else []
        messages.append({"role": "user", "content": [_part(verbatim(turn.prompt)), *mark]})
        answer = [_part(verbatim(turn.answer))] if turn.answer else []
        foot = _waiting(turn, waited_s, progress) if turn.is_open else _foot(turn)
        messages.append({"role": "assistant", "content": [*answer, _part(foot)]})
    return messages


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _waiting(turn: Turn, waited_s: float, progress: Waiting | LoadProgress | None) -> str:
    if turn.answer:
        said = f"answering · {turn.usage.completion_tokens} tokens" if turn.usage else "answering"
    else:
        said = _before_the_first_word(turn, progress)
        said += f" · {waited_s:.0f} s" if waited_s >= 1 and not isinstance(progress, Waiting) else ""
    return f'<div class="foot busy">{said}</div>'


def _before_the_first_word(turn: Turn, progress: Waiting | LoadProgress | None) -> str:
    match progress:
        case LoadProgress():
            return f"{verbatim(turn.request.model_id)}: {load_line(progress)}"
        case Waiting():
            return waiting_line(progress)
    endpoint = turn.request.endpoint
    return f"Asking {verbatim(endpoint.address)}" if endpoint else "Reading the prompt"


def waiting_line(waiting: Waiting) -> str:
    """Such as "Waiting: 3rd in line · about 40 s"; the time only where there is something to go by."""
    about = "" if waiting.estimate_s is None else f" · about {_roughly(waiting.estimate_s)}"
    return f"Waiting: {_ordinal(waiting.position)} in line{about}"


def _roughly(seconds: float) -> str:
    """Such as "40 s" and "3 min", in the steps in which people guess."""
    if seconds < 10:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 5) * 5} s" if seconds <= 90 else f"{math.ceil(seconds / 60)} min"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def load_line(progress: LoadProgress) -> str:
    """Such as "Downloading · 3.2 of 14.7 GB"; the numbers only where they are known."""
    stage = STAGES[progress.stage]
    return f"{stage} · {part_of(progress.done_bytes, progress.total_bytes)}" if progress.total_bytes else stage


def part_of(done_bytes: int, total_bytes: int) -> str:
    """Such as "3.2 of 14.7 GB", in the unit of the whole."""
    unit, name = (1e9, "GB") if total_bytes >= 1e9 else (1e6, "MB")
    return f"{done_bytes / unit:.1f} of {total_bytes / unit:.1f} {name}"


def amount(size_bytes: int) -> str:
    """Such as "14.7 GB", "135 MB", "8.4 MB"."""
    if size_bytes >= 999_500_000:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 9_950_000 or not size_bytes else f"{size_bytes / 1e6:.1f} MB"


def _foot(turn: Turn) -> str:
    error = error_box(turn.error, "Regenerate asks again.") if turn.error else ""
    copy = '<button type="button" class="copy-answer" title="Copy the exact text">Copy</button>' if turn.answer else ""
    facts = "".join(f"<span>{fact}</span>" for fact in status_facts(turn))
    return f'{error}<div class="foot">{facts}{copy}</div>'


def status_facts(turn: Turn) -> list[str]:
    """What the status line says of a finished answer, piece by piece."""
    facts = [ENDINGS[turn.finish_reason or "error"] if turn.answer or turn.error else _silent(turn.finish_reason)]
    if turn.usage:
        facts += _counts(turn.answer, turn.usage, turn.timings)
    sampling = turn.request.sampling
    facts.append("greedy" if sampling.temperature == 0 else f"seed {sampling.seed}")
    facts.append(verbatim(turn.request.model_id))
    if turn.request.endpoint:
        facts.append(_elsewhere(turn.request.endpoint, turn.sent_as))
    return [*facts, adapter_fact(turn.request.adapter)] if turn.request.adapter else facts


def _elsewhere(endpoint: EndpointUse, sent_as: SentAs | None) -> str:
    """Such as "10.0.0.7:8000 · kullm3-formal · as token ids"."""
    return verbatim(" · ".join([endpoint.address, endpoint.model, *([WAYS[sent_as]] if sent_as else [])]))


def adapter_fact(use: AdapterUse) -> str:
    """An adapter in short; all of its id and revision where the pointer rests."""
    return f'<span title="{verbatim(f"{use.id}, revision {use.revision}")}">+ {verbatim(adapter_words(use))}</span>'


def adapter_words(use: AdapterUse) -> str:
    """Such as "krutrim-formal@fa5891c8 × 0.5": a folder by its last part, the scale where it is not 1."""
    is_folder = use.id.startswith(("/", ".", "~")) or "\\" in use.id or re.match("[A-Za-z]:", use.id)
    name = re.split(r"[\\/]", use.id.rstrip("\\/"))[-1] if is_folder else use.id
    scale = "" if use.scale == 1 else f" × {use.scale:g}"
    return f"{name or use.id}@{short_revision(use.revision)}{scale}"


def short_revision(revision: str) -> str:
    """The first eight digits of a commit or of a digest."""
    return revision.removeprefix("sha256:")[:8]


def _silent(reason: FinishReason | None) -> str:
    return "stopped before the first word" if reason == "abort" else "ended without a word"


def _counts(answer: str, usage: Usage, timings: Timings | None) -> list[str]:
    tokens = usage.completion_tokens
    facts = [f"{tokens} token" if tokens == 1 else f"{tokens} tokens"]
    if timings is None:
        return facts
    facts.append(f"first token {timings.time_to_first_token_s:.2f} s")
    if not math.isnan(speed := timings.tokens_per_second(tokens)):
        facts += [f"{speed:.1f} tokens/s", f"{len(answer) / timings.decode_s:.0f} characters/s"]
    return facts


def error_box(sentence: str, advice: str = "") -> str:
    """A box that stands out and is read aloud at once; `advice` is ours and plain."""
    tail = f'<div class="advice">{advice}</div>' if advice else ""
    return f'<div class="error-box" role="alert"><div class="sentence">{verbatim(sentence)}</div>{tail}</div>'


def notice(state: PanelState) -> str:
    return error_box(state.notice, "Nothing was sent.") if state.notice else ""


def hint(sentence: str) -> str:
    return f'<div class="hint" role="status">{verbatim(sentence)}</div>' if sentence else ""

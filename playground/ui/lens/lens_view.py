"""A panel's lens as one piece of HTML: budget, facts, warnings, then the prompt as text or as tokens.

Pure functions; every text of a model, a user or an error goes through `verbatim`. Knows no gradio component. Called by
`look`.
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.prompting.prompt import Budget, TokenCounts
from playground.types import ControlText, TemplateSource
from playground.ui.lens import budget_view, prompt_view, token_view
from playground.ui.lens.parts import NAMES, SYSTEMS, Seen, Stage
from playground.ui.lens.prompt_view import Names
from playground.ui.view import error_box, verbatim

SOURCES: dict[TemplateSource, str] = {
    "tokenizer": "the tokenizer's files",
    "card": "the model card",
    "user": "yours, for this session",
    "none": "none, the text goes in as it is",
}
TITLES: dict[Stage, str] = {
    "typing": "What the model would receive",
    "answering": "Being answered",
    "answered": "What the last answer was made from",
}
NOT_EXACT = "What this panel's template makes of it"


def lens(seen: Seen, budget: Budget, asked_tokens: int, typed: TokenCounts, body: str) -> str:
    """`typed`: of the text that is asked now; `body`: `text_body` or `token_body`."""
    text = seen.messages[seen.last].content
    room = budget_view.room_words(budget.room, typed, budget_view.script_of(text))
    refusal = budget_view.refusal(seen, budget)
    sentences = [
        seen.going,
        *seen.prompt.notes,
        budget_view.shortness(seen, budget, asked_tokens),
        *_control_warnings(seen),
    ]
    said = "".join(f"<li>{verbatim(sentence)}</li>" for sentence in sentences if sentence)
    return (
        f'<div class="preview">{budget_view.bar(budget, room, seen.left_out)}{_facts(seen)}'
        f"{error_box(refusal) if refusal else ''}{f'<ul class=said>{said}</ul>' if said else ''}{body}</div>"
    )


def text_body(seen: Seen, names: Names, with_ids: bool) -> str:
    ids = f'<div class="text ids" tabindex="0"><div>{prompt_view.ids(seen)}</div></div>' if with_ids else ""
    return (
        f'<div class="text" tabindex="0" role="textbox" aria-readonly="true" aria-label="{TITLES[seen.stage]}">'
        f'<div class="exact">{prompt_view.exact(seen, names)}</div></div>{ids}{_key(seen)}'
    )


def token_body(seen: Seen, boxes: str, whole: TokenCounts, typed: TokenCounts) -> str:
    """`boxes`: as `token_view` has them."""
    now = "This prompt" if seen.stage == "typing" else "The prompt"
    return (
        f"{token_view.counts_line(typed, now)}{token_view.counts_line(whole, 'All of it')}"
        f'<div class="text" tabindex="0" aria-label="Tokens">{boxes}</div>{_key(seen)}'
    )


def empty(sentence: str) -> str:
    return f'<div class="preview"><div class="facts"><span>{verbatim(sentence)}</span></div></div>'


def error(sentence: str) -> str:
    return f'<div class="preview">{error_box(sentence)}</div>'


def caution(found: Sequence[tuple[str, tuple[str, ...]]], control: ControlText) -> str:
    """Under the prompt box. `found`: of each model its name and the control tokens that the typed text spells."""
    models: dict[tuple[str, ...], list[str]] = {}
    for name, tokens in found:
        if tokens:
            models.setdefault(tokens, []).append(name)
    said = "".join(f"<div>{_caution(tokens, names, control)}</div>" for tokens, names in models.items())
    return f'<div class="caution" role="status">{said}</div>' if said else ""


def _caution(tokens: Sequence[str], names: Sequence[str], control: ControlText) -> str:
    spelled = _listed([f"<code>{verbatim(token)}</code>" for token in tokens])
    several = len(tokens) > 1
    are = "are control tokens" if several else "is a control token"
    become = f"{'They are' if several else 'It is'} sent as {'plain text' if control == 'plain' else 'such'}"
    choice = "as typed" if control == "plain" else "plain text"
    of = _listed([verbatim(name) for name in names])
    return f"{spelled} {are} of {of}. {become}. Prompting has the other choice: {choice}."


def _facts(seen: Seen) -> str:
    template = seen.prompt.template
    title = TITLES[seen.stage] if seen.is_exact else NOT_EXACT
    system = SYSTEMS[seen.prompt.system]
    return (
        f'<div class="facts"><span class="title">{title}</span>'
        f'<span class="source">Template: {SOURCES[template.source]} '
        f'<span class="print" title="SHA-256 {template.fingerprint}">{template.fingerprint[:8]}</span></span>'
        f"{f'<span>System prompt: {system}</span>' if system else ''}</div>"
    )


def _control_warnings(seen: Seen) -> list[str]:
    """One for what is asked now, one for what was said before."""
    now = [each.token for each in seen.prompt.control_in_text if each.message == seen.last]
    before = [each.token for each in seen.prompt.control_in_text if each.message != seen.last]
    said = [(now, "The prompt"), (before, "What was said before")]
    return [_spells(whose, tokens, seen.options.control) for tokens, whose in said if tokens]


def _spells(whose: str, tokens: Sequence[str], control: ControlText) -> str:
    """Each token once."""
    found = [*dict.fromkeys(tokens)]
    kind, became = ("control tokens", "they are") if len(found) > 1 else ("a control token", "it is")
    sent = "plain text" if control == "plain" else "typed: the model reads the token itself"
    return f"{whose} spells {kind}, {_listed(found)}: {became} sent as {sent}."


def _listed(words: Sequence[str]) -> str:
    """Such as "a, b and c"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _key(seen: Seen) -> str:
    """The colours that are there, in words."""
    there = {seen.look(span) for span in seen.prompt.spans}
    names = "".join(f'<span class="{look}">{words}</span>' for look, words in NAMES.items() if look in there)
    unsent = '<span class="x">not sent</span>' if seen.prompt.unsent else ""
    return f'<div class="key" aria-hidden="true">{names}{unsent}</div>'

"""A prompt as HTML, to the character: each part in the colour of whoever wrote it, with its name.

Names, and whatever is not in the prompt, are drawn by the style sheet out of attributes, so that the text of the markup
is the prompt and nothing else. Pure functions. Knows no gradio component. Called by `lens_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from playground.prompting.prompt import Span, Unsent
from playground.ui.lens.parts import WHY, Seen
from playground.ui.view import verbatim

Names = Callable[[Sequence[int]], Sequence[str]]
"""The vocabulary's spelling of tokens."""

MOST_OF_A_GHOST = 160
"""Characters that are shown of a message that is not sent."""


def exact(seen: Seen, names: Names) -> str:
    """The prompt's text; what is not sent stands struck in its place, what the tokenizer added is a chip."""
    waiting = sorted(seen.prompt.unsent, key=lambda each: each.message)
    named: set[str] = set()
    parts: list[str] = []
    for span in seen.prompt.spans:
        while span.message is not None and waiting and waiting[0].message < span.message:
            parts.append(_ghost(seen, waiting.pop(0)))
        parts.append(_part(seen, span, names, named))
    return "".join([*parts, *(_ghost(seen, each) for each in waiting)])


def _part(seen: Seen, span: Span, names: Names, named: set[str]) -> str:
    prompt, look = seen.prompt, seen.look(span)
    if span.start == span.end:
        if span.first_token == span.end_token:
            return ""
        added = " ".join(names(prompt.token_ids[span.first_token : span.end_token]))
        return f'<i class="k" data-t="{verbatim(added)}"></i>'
    label = seen.span_label(span)
    attribute = "" if not label or label in named else f' data-l="{verbatim(label)}"'
    named.add(label)
    return f'<span class="{look}"{attribute}>{verbatim(prompt.text[span.start : span.end])}</span>'


def _ghost(seen: Seen, unsent: Unsent) -> str:
    label = f"{seen.label(unsent.message)} · {WHY[unsent.why]}"
    content = seen.messages[unsent.message].content
    shown = content if len(content) <= MOST_OF_A_GHOST else f"{content[:MOST_OF_A_GHOST]} …"
    return f'<i class="x" data-l="{verbatim(label)}" data-t="{verbatim(shown)}"></i>'


def ids(seen: Seen) -> str:
    """The token ids, part by part."""
    return "".join(_ids_of_part(seen, span) for span in seen.prompt.spans if span.first_token < span.end_token)


def _ids_of_part(seen: Seen, span: Span) -> str:
    numbers = " ".join(map(str, seen.prompt.token_ids[span.first_token : span.end_token]))
    return f'<span class="{seen.look(span)}">{numbers}</span> '

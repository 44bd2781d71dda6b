"""What stands under a template that a user edits, as HTML: its fault with the line itself, who uses it, what changed.

Pure functions; every text goes through `verbatim`. Knows no gradio component. Called by `template_editor`.
"""

from __future__ import annotations

import regex

from playground.prompting.prompt import TemplateUsed
from playground.prompting.templates import TemplateFault
from playground.types import TemplateSource
from playground.ui.lens.template_diff import diff, lines_of
from playground.ui.view import error_box, hint, verbatim

OWN = "This is the model's own template. What you change is used in this panel, in this session only."
YOURS = "Your template is used in this panel, in this session only."
FAULTY = "A template with a fault is not used: nothing is sent from this panel until you correct or reset it."
READ_ONLY = (
    "Templates can be edited where only this machine can open the page; elsewhere whoever runs the playground may "
    "allow it with --edit-templates."
)
SOURCES: dict[TemplateSource, str] = {
    "tokenizer": "from the tokenizer's files",
    "card": "from the model card",
    "user": "from a catalog file",
    "none": "the text as it is",
}

AROUND = 70
"""Characters of a faulty line that are shown to either side of the fault."""

_CLUSTER = regex.compile(r"\X")


def report(own: TemplateUsed, text: str | None, fault: TemplateFault | None, trial: str, may_edit: bool) -> str:
    """`text`: the user's, None for the model's own. `trial`: why it failed when it was tried, "" if it did not."""
    said = YOURS if text is not None else OWN
    tried = hint(f"Tried on one short message: {trial}") if trial else ""
    top = f'{tried}<p class="use" role="status">{said if may_edit else READ_ONLY}</p>'
    if fault:
        top = f'{fault_box(text or "", fault)}<p class="use" role="status">{FAULTY}</p>'
    facts = f"<span>Original {SOURCES[own.source]}</span><span>SHA-256 {own.fingerprint[:12]}</span>"
    changes = diff(own.text, text) if text is not None else ""
    return f'<div class="template-report">{top}<div class="facts">{facts}</div>{changes}</div>'


def unavailable(sentence: str) -> str:
    return f'<div class="template-report">{error_box(sentence)}</div>'


def fault_box(text: str, fault: TemplateFault) -> str:
    """The sentence, and the line. The style sheet draws a caret under the mark, for letters differ in width."""
    lines = lines_of(text)
    line = lines[fault.line - 1] if fault.line <= len(lines) else ""
    shown = verbatim(line[: 2 * AROUND]) if fault.column is None else _marked(line, fault.column - 1)
    return (
        f'<div class="template-fault" role="status"><div>{verbatim(fault.sentence)}</div>'
        f"<code><i>{fault.line}</i><span>{shown}</span></code></div>"
    )


def _marked(line: str, at: int) -> str:
    cluster = _CLUSTER.match(line, at)
    end = cluster.end() if cluster else at
    before, after = line[max(0, at - AROUND) : at], line[end : end + AROUND]
    left, right = "…" if at > AROUND else "", "…" if len(line) > end + AROUND else ""
    return f"{left}{verbatim(before)}<mark>{verbatim(line[at:end])}</mark>{verbatim(after)}{right}"

"""What a panel says about its adapter, as HTML: what is in use, what is being inspected, what was refused.

Pure functions; every text of an adapter or a user goes through `verbatim`. Knows no gradio component and no engine.
Called by `adapters`.
"""

from __future__ import annotations

from playground.adapters.facts import AdapterFacts, CheckedAdapter
from playground.ui.adapter_state import PanelAdapter
from playground.ui.view import adapter_words, amount, error_box, hint, short_revision, verbatim


def about(checked: CheckedAdapter, purpose: str) -> str:
    """One line on what is in use, then a box for each thing that is odd about it. `purpose`: "" if nobody says."""
    facts = checked.facts
    layers = len(facts.target_modules)
    said = [ranks(facts), f"{layers} layer" if layers == 1 else f"{layers} layers", amount(facts.bytes)]
    line = "".join(f"<span>{words}</span>" for words in said)
    revision = (
        f'<span title="{verbatim(checked.revision)}">revision {verbatim(short_revision(checked.revision))}</span>'
    )
    purpose = f'<span class="purpose">{verbatim(purpose)}</span>' if purpose else ""
    warnings = "".join(hint(warning) for warning in facts.warnings)
    return f'<div class="about-line">{line}{revision}{purpose}</div>{warnings}'


def ranks(facts: AdapterFacts) -> str:
    """Such as "r 8", or "r 4 to 16" where its layers differ."""
    found = {facts.rank_pattern.get(name, facts.r) for name in facts.target_modules} or {facts.r}
    low, high = min(found), max(found)
    return f"r {low}" if low == high else f"r {low} to {high}"


def inspecting(text: str, now: PanelAdapter) -> str:
    return (
        f'<div class="inspecting" role="status"><span>Inspecting {verbatim(text)} …</span>'
        f"<span>Until it is accepted, prompts go to {verbatim(in_use(now))}.</span></div>"
    )


def refusal(sentence: str, now: PanelAdapter) -> str:
    return error_box(sentence, f"Prompts go to {verbatim(in_use(now))}, as before.")


def in_use(now: PanelAdapter) -> str:
    return adapter_words(now.checked.use()) if now.checked else "the plain model"

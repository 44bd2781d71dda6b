"""The events of what a panel tells of its answer: which component triggers which handler, with what, to where.

Knows the components and the handlers, decides nothing. Called by `playground.ui.events`.
"""

from __future__ import annotations

import gradio as gr

from playground.ui.event_kinds import NOW, QUIET, STREAMS_PER_PANEL
from playground.ui.lens.probabilities import ProbabilityHandlers
from playground.ui.panel import Panel
from playground.ui.prompt_bar import PromptBar


def wire_probabilities(own: ProbabilityHandlers, panels: list[Panel], bar: PromptBar) -> None:
    """An answer is scored in an event of its own, which may last as long as an answer; a second press gives it up."""
    for panel in panels:
        odds = panel.odds
        odds.button.click(
            own.press,
            [odds.showing, panel.state],
            odds.view,
            concurrency_id=f"probabilities-{panel.index}",
            concurrency_limit=STREAMS_PER_PANEL,
            trigger_mode="multiple",
            **QUIET,
        )
        panel.model.change(own.follow, panel.shown_odds, [odds.view, odds.button], **NOW)
        gr.on([panel.clear.click, panel.remove.click], own.close, odds.showing, [odds.view, odds.button], **NOW)
    everything = [part for panel in panels for part in (panel.odds.view, panel.odds.button)]
    bar.clear_all.click(own.close, [panel.odds.showing for panel in panels], everything, **NOW)

"""The kinds of events that the page has, as arguments for Gradio. Used wherever events are wired."""

from __future__ import annotations

from typing import Any

from playground.limits import MAX_PANELS, Limits

STREAMS_PER_PANEL = 64
"""Sessions that may check an adapter, ask a server or read probabilities in the same panel slot at once; beyond, they
queue."""

OTHER_EVENTS = 1_000
"""Events that may run where nobody has to wait, or beside those who wait: all of the above, of all panels, and more."""

MOST_QUEUED = 1_000
"""Events that may stand in Gradio's queue, where each is for a moment; beyond, they are refused."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""For every event: no spinner of Gradio's, on no component. At each event a browser goes through all components that
any event ever showed its progress on; naming none makes typing and streaming quick."""

NOW: dict[str, Any] = {"queue": False, **QUIET}
"""For events that answer at once and never stand behind an answer that is being generated."""

ANSWERS: dict[str, Any] = {"concurrency_limit": None}
"""For events that come through the gate, which has their number; who waits there is told."""

HERE: dict[str, Any] = {"fn": None, **QUIET}
"""For events that the browser handles alone."""


def most_events(limits: Limits) -> int:
    """Events that Gradio may run at once: with fewer than may come, some would wait without a word."""
    if limits.places is None:
        return OTHER_EVENTS
    return OTHER_EVENTS + MAX_PANELS * (limits.places + (limits.waiting or OTHER_EVENTS))

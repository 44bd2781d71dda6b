"""The kinds of events that the page has, as arguments for Gradio. Used wherever events are wired."""

from __future__ import annotations

from typing import Any

STREAMS_PER_PANEL = 64
"""Sessions that may stream into the same panel slot at once; beyond, they queue. Engines have their own limits."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""For every event: no spinner of Gradio's, on no component. At each event a browser goes through all components that
any event ever showed its progress on; naming none makes typing and streaming quick."""

NOW: dict[str, Any] = {"queue": False, **QUIET}
"""For events that answer at once and never stand behind an answer that is being generated."""

HERE: dict[str, Any] = {"fn": None, **QUIET}
"""For events that the browser handles alone."""

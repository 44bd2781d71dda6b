"""The kinds of events that the page has, as arguments for Gradio. Used wherever events are wired."""

from __future__ import annotations

from typing import Any

STREAMS_PER_PANEL = 64
"""Sessions that may stream into the same panel slot at once; beyond, they queue. Engines have their own limits."""

NOW: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that answer at once and never stand behind an answer that is being generated."""

HERE: dict[str, Any] = {"fn": None, "show_progress": "hidden", "api_visibility": "private"}
"""For events that the browser handles alone."""

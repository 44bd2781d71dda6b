"""When keys were pressed and when their letters stood on the screen; for lens.py.

The page writes down each key (the time of the browser's own event) and, for each place that shows what is typed, how
many letters of it stand there after each frame that changed it. Knows places by CSS selectors, and no model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Page

PATIENCE_MS = 30_000

RECORD = """places => {
  window.keystrokes?.end();
  const seen = (window.keystrokes = { keys: [], shown: places.map(() => []) });
  performance.setResourceTimingBufferSize(100000);
  performance.clearResourceTimings();
  const field = document.querySelector("#prompt textarea");
  const note = event => seen.keys.push([event.timeStamp, field.value.length]);
  field.addEventListener("input", note, { capture: true });
  const size = selector => document.querySelector(selector)?.textContent.length ?? 0;
  const rest = places.map(place => size(place) - field.value.length);
  const length = (selector, place) => size(selector) - rest[place];
  const before = places.map(length);
  let waiting = false;
  const look = () => {
    waiting = false;
    const now = places.map(length);
    const changed = now.map((shown, place) => shown !== before[place]);
    now.forEach((shown, place) => (before[place] = shown));
    if (!changed.includes(true)) return;
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      const when = performance.now();
      now.forEach((shown, place) => changed[place] && seen.shown[place].push([when, shown]));
    };
    port2.postMessage(0);
  };
  const observer = new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(look);
  });
  const whole = document.querySelector(".gradio-container");
  observer.observe(whole, { subtree: true, childList: true, characterData: true });
  seen.end = () => {
    observer.disconnect();
    field.removeEventListener("input", note, { capture: true });
  };
}"""
"""A message that is posted while a frame is made arrives behind it, when it was painted."""

ALL_SHOWN = """() => {
  const { keys, shown } = window.keystrokes;
  return keys.length && shown.every(place => place.length && place.at(-1)[1] >= keys.at(-1)[1]);
}"""

TRIPS = """name => performance.getEntriesByType("resource")
  .filter(entry => entry.name.includes(name)).map(entry => [entry.duration, entry.decodedBodySize])"""
"""Milliseconds from the request to the last byte of its answer, and the bytes of that."""


class Keystrokes:
    """A record of one spell of typing; made when the places show what was typed before it.

    places: selectors of what grows by each letter that is typed, sooner or later.
    """

    def __init__(self, page: Page, places: Sequence[str]) -> None:
        self.page = page
        page.evaluate(RECORD, list(places))

    def type(self, text: str, pause_ms: float, *, settle: bool) -> None:
        """`settle`: each key waits until all before it are shown; else only for the pause."""
        for letter in text:
            self.page.keyboard.insert_text(letter)
            if settle:
                self.page.wait_for_function(ALL_SHOWN, timeout=PATIENCE_MS, polling=20)
            self.page.wait_for_timeout(pause_ms)
        self.page.wait_for_function(ALL_SHOWN, timeout=PATIENCE_MS, polling=20)

    def delays_ms(self) -> list[float]:
        """Of each key, until every place had painted it."""
        seen: dict[str, Any] = self.page.evaluate(
            "() => ({ keys: window.keystrokes.keys, shown: window.keystrokes.shown })"
        )
        return [
            max(next(when for when, size in place if size >= length) for place in seen["shown"]) - pressed
            for pressed, length in seen["keys"]
        ]

    def trips(self, name: str) -> list[tuple[float, int]]:
        """Of each request with `name` in its address: milliseconds to the last byte, and bytes."""
        return [(took, size) for took, size in self.page.evaluate(TRIPS, name)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile (the nearest value), least and most."""
    ranked = sorted(values)
    return {
        "median": statistics.median(ranked),
        "p95": ranked[math.ceil(0.95 * len(ranked)) - 1],
        "least": ranked[0],
        "most": ranked[-1],
        "keys": len(ranked),
    }

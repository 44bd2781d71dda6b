"""Regular expressions from strangers, matched against layer names within a limit of time and memory.

What PEFT 0.21 does with `re`, which has no such limit. Called by the target resolution. Knows no files.
"""

from __future__ import annotations

import re
import time
from math import prod

import regex

from playground.adapters.files import shown
from playground.errors import AdapterError

MAX_LENGTH = 1000
MAX_COPIES = 1000
"""Counted repeats are copied when a pattern is compiled: this many copies of a part, nested repeats multiplied."""

COUNTS = re.compile(r"\{(\d{1,3})?(?:,(\d{1,3})?)?\}")


class PatternMatcher:
    """Matches patterns until its time is used up; the patterns of one adapter share one.

    `seconds`: for all matches together.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._compiled: dict[str, regex.Pattern[str]] = {}

    def match(self, pattern: str, name: str, field: str, around: str = "") -> regex.Match[str] | None:
        """The match of a pattern with a layer's name.

        Args:
            pattern: a regular expression in Python's syntax.
            name: a layer's full name.
            field: the field of adapter_config.json that the pattern stands in, for the sentence.
            around: what PEFT writes around the pattern, which stands at {}, before it matches from the beginning
                of the name; "" to match the pattern with the whole name.

        Raises:
            AdapterError: the pattern is none, is too large, or takes too long.
        """
        begin = time.monotonic()
        compiled = self._compile(pattern, around.replace("{}", pattern) or pattern, field)
        matches = compiled.match if around else compiled.fullmatch
        try:
            if self._left <= 0:
                raise TimeoutError("no time is left")
            return matches(name, timeout=self._left)
        except (TimeoutError, MemoryError) as error:
            raise AdapterError(
                f"adapter_config.json: a pattern in `{field}` takes too long to match, {shown(pattern)}: "
                "list the layers by name instead."
            ) from error
        finally:
            self._left -= time.monotonic() - begin

    def _compile(self, pattern: str, whole: str, field: str) -> regex.Pattern[str]:
        if whole not in self._compiled:
            self._compiled[whole] = _compiled(pattern, whole, field)
        return self._compiled[whole]


def _compiled(pattern: str, whole: str, field: str) -> regex.Pattern[str]:
    if len(pattern) > MAX_LENGTH or not _is_small(pattern):
        raise AdapterError(
            f"adapter_config.json: a pattern in `{field}` is too long or repeats too much, {shown(pattern)}: "
            "list the layers by name instead."
        )
    try:
        re.compile(whole)  # PEFT's own engine decides what is a pattern
        return regex.compile(whole, cache_pattern=False)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise AdapterError(
            f"adapter_config.json: `{field}` is no valid regular expression, {shown(pattern)}: {shown(str(error))}."
        ) from error


def _is_small(pattern: str) -> bool:
    counts = COUNTS.findall(pattern)
    if len(counts) != pattern.count("{"):  # something else in braces, which the two engines read differently
        return False
    return prod(max(1, *(int(number or 0) for number in pair)) for pair in counts) <= MAX_COPIES

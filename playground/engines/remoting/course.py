"""How far a server's answer has come: whether it has begun, whether it is over, and when it is more than was asked for.

Knows neither connection nor clock. One for each request that a server takes; called by `asking`.
"""

from __future__ import annotations

from dataclasses import replace

from playground.engines.remoting.sentences import (
    EmptyError,
    HeldBackError,
    OnlyThoughtError,
    ToolCallError,
    UnfinishedError,
)
from playground.engines.remoting.told import Told
from playground.types import FinishReason

LETTERS_A_TOKEN = 64
LETTERS_MORE = 1_000
"""An answer of more characters is none of so many tokens: the server does not keep to `max_tokens`, or never ends."""


class Course:
    """
    Args:
        max_tokens: what the answer may have; it may have as many characters as so many tokens could hold.

    has_begun: whether a token came.
    """

    def __init__(self, max_tokens: int) -> None:
        self.has_begun = False
        self._reason: FinishReason | None = None
        self._has_thought = self._has_answered = self._is_held_back = self._calls_tool = False
        self._room = max_tokens * LETTERS_A_TOKEN + LETTERS_MORE

    @property
    def is_over(self) -> bool:
        """Whether the reason came why the answer ended."""
        return self._reason is not None

    @property
    def is_full(self) -> bool:
        """Whether no more shall be read."""
        return self._room < 0

    def read(self, told: Told) -> Told:
        """What the server told; with an end where it told too much, for nobody knows when it would end by itself."""
        self._room -= told.size
        if self.is_full and not self.is_over:
            told = replace(told, finish_reason="length")
        self._has_thought = self._has_thought or bool(told.thought)
        self._has_answered = self._has_answered or bool(told.text.strip())
        self._is_held_back = self._is_held_back or told.is_held_back
        self._calls_tool = self._calls_tool or told.calls_tool
        self.has_begun = self.has_begun or told.says_something
        self._reason = self._reason or told.finish_reason
        return told

    def require_end(self) -> None:
        """Nothing more will come.

        Raises:
            UnfinishedError: it has no reason why it ended.
            HeldBackError: the server keeps the rest to itself.
            ToolCallError: the server waits for what no program here will tell it.
            OnlyThoughtError: there is no answer, for the server only thought about one.
            EmptyError: there is none, and it ended by itself.
        """
        if not self.is_over:
            raise UnfinishedError
        if self._is_held_back:
            raise HeldBackError
        if self._calls_tool:
            raise ToolCallError
        if self._has_answered:
            return
        if self._has_thought:
            raise OnlyThoughtError
        if self._reason == "stop":
            raise EmptyError

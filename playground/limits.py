"""What one visitor, and all of them together, may have of the page. Values only.

Read from the command line by `settings`, kept by the admission, the panels and the API. Knows nothing of either.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_PANELS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit.

    prompt_characters: of one message, one system prompt, one template.
    answer_tokens: the longest answer that may be asked for.
    turns: prompts in one panel's conversation.
    running_per_session, running_per_address: prompts that are answered or wait at a time, with all their panels. Of
        several places one address never has more than half, whatever is said here.
    asks_per_minute: prompts, and what else costs an engine or a server work, from one address.
    places: prompts that are answered at a time, of all visitors.
    waiting: prompts that may wait for a place.
    new_sessions_per_minute: pages that one address opens, and events of programs that name no session.
    events_per_session: events of one page that have not ended, or whose end it has not read.
    sessions: open pages whose conversations are kept; of more, those that were used last.
    """

    prompt_characters: int | None = None
    answer_tokens: int | None = None
    turns: int | None = None
    running_per_session: int | None = None
    running_per_address: int | None = None
    asks_per_minute: int | None = None
    places: int | None = None
    waiting: int | None = None
    new_sessions_per_minute: int | None = None
    events_per_session: int | None = None
    sessions: int | None = None


OPEN = Limits()
"""For whoever runs it alone."""

PUBLIC = Limits(
    prompt_characters=8_000,
    answer_tokens=1_024,
    turns=50,
    running_per_session=2,
    running_per_address=3,
    asks_per_minute=30,
    places=8,
    waiting=200,
    new_sessions_per_minute=30,
    events_per_session=64,
    sessions=500,
)
"""For a page that strangers open, such as a Space."""

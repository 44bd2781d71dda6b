"""Which connections are held at the moment, by the session that holds them. Used by `backlog` and `leaving`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Held(Counter[str]):
    """Sessions, each with how many connections it holds; those that hold none are not in it."""

    @contextmanager
    def by(self, session: str) -> Iterator[None]:
        """While this session holds one more."""
        self[session] += 1
        try:
            yield
        finally:
            self[session] -= 1
            if not self[session]:
                del self[session]

"""A model that runs elsewhere: an OpenAI-compatible server answers, and the prompt is ours.

Behind the protocol of `engines.base`. Asyncio only; its rooms are in `remoting`. Made by `remoting.servers`.
"""

from __future__ import annotations


class RemoteEngine:
    """See `Engine`."""

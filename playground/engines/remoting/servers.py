"""The pool's door to servers elsewhere: an engine for a request, the models that a server names, the end of it all.

Remembers for each server and model which way a prompt goes; never a key. Knows no catalog and no panel. One a pool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from model_registry.spec import ModelSpec
from playground.engines.remote import RemoteEngine
from playground.engines.remoting.connection import GarbageError, Patience, RefusedError, opened, use_our_client
from playground.engines.remoting.desk import AbortedError, Desk
from playground.engines.remoting.forms import NO_ROUTE, Learnt
from playground.engines.remoting.policy import EndpointPolicy
from playground.engines.remoting.sentences import Site, StalledError, sentence, spells_key
from playground.errors import EngineClosedError
from playground.types import EndpointUse

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder

LISTING_S = 10.0
"""Seconds that a server has for the list of its models."""
LISTED = 1000
"""Models of one server that are shown; `NAME_LIMIT` characters of each name make it one that can be chosen."""
NAME_LIMIT = 300


class RemoteEngines:
    """
    Args:
        policy: which servers may be asked.
        patience: how long they are waited for.
    """

    def __init__(self, policy: EndpointPolicy, patience: Patience = Patience()) -> None:  # noqa: B008 (frozen)
        self.policy = policy
        self._patience = patience
        self._desk = Desk()
        self._learnt = Learnt()
        self._closed = False
        use_our_client()

    def engine(
        self, spec: ModelSpec, endpoint: EndpointUse, encoder: Callable[[], Awaitable[PromptEncoder]]
    ) -> RemoteEngine:
        """The engine that has a server answer as a model of the catalog; costs nothing, make one for each request.

        Args:
            spec: the model, whose tokenizer and template write the prompts.
            endpoint: the server, the model's name there, the key.
            encoder: gives the model's prompt encoder; not called where the messages are sent as they are.

        Raises:
            EngineError: the policy refuses the server; says what to do.
            EngineClosedError: after `close`.
        """
        self._require_open()
        allowed = endpoint.model_copy(update={"url": self.policy.require(endpoint.url)})
        return RemoteEngine(spec, allowed, encoder, self._desk, self._learnt, self._patience)

    async def models(self, url: str, key: SecretStr) -> tuple[str, ...]:
        """What a server calls its models, as it lists them; () where it lists none (transformers serve, of a folder).

        Whoever asks may have put another server there: what was learnt of this address is learnt again.

        Raises:
            EngineError: as `engine`, or the server does not answer; says what to do, and never the key.
        """
        self._require_open()
        base = self.policy.require(url)
        self._learnt.forget(base)
        failure: Exception | None = None
        try:
            async with asyncio.timeout(LISTING_S):
                return await self._models(base, key)
        except TimeoutError:
            failure = StalledError(LISTING_S)
        except Exception as error:
            failure = error
        raise sentence(failure, Site(base, "", key))

    async def abort(self, request_id: str) -> None:
        """End the answer to a request, whichever engine gives it. Unknown ids are ignored."""
        self._desk.end(request_id, AbortedError())

    async def close(self) -> None:
        """End every answer: their streams raise EngineClosedError. May be repeated."""
        self._closed = True
        self._desk.close(EngineClosedError("The playground was shut down while a server answered: send again."))

    async def _models(self, base: str, key: SecretStr) -> tuple[str, ...]:
        try:
            async with opened("GET", f"{base}/models", key, self._patience) as response:
                return _names(await response.aread(), key)
        except RefusedError as refusal:
            if refusal.status in NO_ROUTE:
                return ()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosedError("The playground is shutting down: start it again.")


def _names(body: bytes, key: SecretStr) -> tuple[str, ...]:
    """Those that can be shown: a server may make one of the key that it was sent."""
    try:
        listed: Any = json.loads(body)
        entries = listed["data"] if isinstance(listed, dict) else listed
        names = [str(entry["id"]) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise GarbageError("a list of models that is none") from None
    good = (name for name in names if name.strip() and len(name) <= NAME_LIMIT and name.isprintable())
    return tuple(name for name in [*dict.fromkeys(good)][:LISTED] if not spells_key(name, key))

"""The pool's door to servers elsewhere: an engine for a request, the models that a server names, the end of it all.

Remembers for each server and model which way a prompt goes; never a key. Knows no catalog and no panel. One a pool.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import SecretStr

from model_registry.spec import ModelSpec
from playground.engines.remote import RemoteEngine
from playground.engines.remoting.policy import EndpointPolicy
from playground.prompting.encoder import PromptEncoder
from playground.types import EndpointUse


class RemoteEngines:
    """
    Args:
        policy: which servers may be asked.
    """

    def __init__(self, policy: EndpointPolicy) -> None:
        self.policy = policy

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
        raise NotImplementedError

    async def models(self, url: str, key: SecretStr) -> tuple[str, ...]:
        """What a server calls its models, as it lists them; () where it lists none (transformers serve, of a folder).

        Raises:
            EngineError: as `engine`, or the server does not answer; says what to do, and never the key.
        """
        raise NotImplementedError

    async def abort(self, request_id: str) -> None:
        """End the answer to a request, whichever engine gives it. Unknown ids are ignored."""
        raise NotImplementedError

    async def close(self) -> None:
        """End every answer: their streams raise EngineClosedError. May be repeated."""
        raise NotImplementedError

"""The servers that answer instead of engines of this machine: those of the catalog, and those that a user may name.

Stands between whoever asks and `RemoteEngines`, one a pool. It alone reads the keys of the catalog's servers, when it
asks them, and for nothing but what the catalog says of them: they are never in a request that others hold. Knows no
panel.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from model_registry.registry import Registry
from model_registry.spec import ModelSpec, ServerSpec
from playground.engines.remoting.policy import EndpointPolicy, base_url
from playground.engines.remoting.servers import RemoteEngines
from playground.errors import EngineError
from playground.settings import read_secret
from playground.types import EndpointUse, GenerationChunk, GenerationRequest, SentAs, address_of, half_character

if TYPE_CHECKING:
    from playground.prompting.encoder import PromptEncoder

NO_KEY = SecretStr("")
REMEMBERED = 1_000
"""Models on servers of which it is kept how they are given prompts."""


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server of the catalog, as anybody may know it.

    models: what it calls the model, then what it calls adapters of it.
    missing_key: the environment variable that should hold its key and does not; "" where nothing is missing.
    """

    id: str
    name: str
    url: str
    models: tuple[str, ...]
    missing_key: str = ""

    @property
    def label(self) -> str:
        """Such as "KULLM3 on vLLM · 10.0.0.7:8000"."""
        return f"{self.name} · {address_of(self.url)}"


class Elsewhere:
    """
    Args:
        registry: its servers may be asked for the models that they serve.
        endpoints: base urls of servers that a user may name besides.
        any_endpoint: whether a user may name any other.
        secret: reads a key by the name of its environment variable; None where there is none.

    Raises:
        EngineError: a url is none.
    """

    def __init__(
        self,
        registry: Registry,
        endpoints: Sequence[str] = (),
        any_endpoint: bool = False,
        secret: Callable[[str], SecretStr | None] = read_secret,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.any_endpoint = any_endpoint
        self._registry = registry
        self._secret = secret
        self._nameable = EndpointPolicy.of(endpoints, any_endpoint=any_endpoint)
        urls = [*endpoints, *(server.url for server in registry.servers())]
        self._remote = RemoteEngines(EndpointPolicy.of(urls, any_endpoint=any_endpoint))
        self._sent_as: dict[tuple[str, str], SentAs] = {}

    @property
    def may_be_named(self) -> bool:
        """Whether a user may name a server at all."""
        return self.any_endpoint or bool(self.endpoints)

    def servers_of(self, model_id: str) -> tuple[KnownServer, ...]:
        """The servers of the catalog that answer for a model. Raises UnknownModelError."""
        return tuple(self._known(server) for server in self._registry.servers(model_id))

    def use(self, model_id: str, server_id: str, model: str = "") -> EndpointUse:
        """To have a server of the catalog answer for a model; without the key, which is added when it is asked.

        model: one of the server's models, the first if left out.

        Raises:
            EngineError: there is no such server, it serves another model, or has no such model.
        """
        server = self._registry.server(server_id)
        spec = self._registry.get(model_id)
        if self._registry.get(server.serves) is not spec:
            raise EngineError(f"{server.name} does not serve {spec.name}: choose another server.")
        if model and model not in server.models:
            raise EngineError(f"{server.name} has no model {model!r}. There are: {', '.join(server.models)}.")
        return EndpointUse(
            url=base_url(server.url), model=model or server.models[0], messages_only=server.messages_only
        )

    def named(self, url: str, model: str, key: SecretStr = NO_KEY, messages_only: bool = False) -> EndpointUse:
        """To have a server answer that a user names.

        Raises:
            EngineError: it is no server's url, may not be named here, or the model has no name.
        """
        base = self.require_nameable(url)
        model = model.strip()
        if not model:
            raise EngineError("Say what the server calls the model: List models asks it.")
        if half := half_character(model) or half_character(key.get_secret_value()):
            raise EngineError(f"Model or key: {half}.")
        return EndpointUse(url=base, model=model, key=key, messages_only=messages_only)

    def require_nameable(self, url: str) -> str:
        """The url as it is used. Raises EngineError."""
        if half := half_character(url):
            raise EngineError(f"Address: {half}.")
        return self._nameable.require(url)

    async def models(self, url: str, key: SecretStr = NO_KEY) -> tuple[str, ...]:
        """What a server that a user names calls its models; empty where it does not say. Raises EngineError."""
        base = self.require_nameable(url)
        for known in [each for each in self._sent_as if each[0] == base]:
            del self._sent_as[known]  # there may be another server by now
        return await self._remote.models(base, key)

    def sent_as(self, use: EndpointUse) -> SentAs | None:
        """How the server is given prompts for that model; None until it has answered one."""
        return "messages" if use.messages_only else self._sent_as.get((use.url, use.model))

    async def stream(
        self, spec: ModelSpec, request: GenerationRequest, encoder: Callable[[], Awaitable[PromptEncoder]]
    ) -> AsyncGenerator[GenerationChunk, None]:
        """The answer of the request's server, as `Engine.stream`; nothing where it names none.

        Raises:
            PlaygroundError.
        """
        if request.endpoint is None:
            return
        if request.adapter is not None:
            raise EngineError("An adapter of this machine cannot be used on a server: choose a model of the server's.")
        use = self._with_key(spec, request.endpoint)
        engine = self._remote.engine(spec, use, encoder)
        async with aclosing(engine.stream(request.model_copy(update={"endpoint": use}))) as chunks:
            async for chunk in chunks:
                if chunk.sent_as is not None:
                    self._remember(use, chunk.sent_as)
                yield chunk

    async def abort(self, request_id: str) -> None:
        """As `Engine.abort`."""
        await self._remote.abort(request_id)

    async def close(self) -> None:
        """As `Engine.close`."""
        await self._remote.close()

    def _known(self, server: ServerSpec) -> KnownServer:
        missing = server.key if server.key and self._secret(server.key) is None else ""
        return KnownServer(server.id, server.name, base_url(server.url), server.models, missing)

    def _with_key(self, spec: ModelSpec, use: EndpointUse) -> EndpointUse:
        """The catalog's key, for what the catalog names and no other model: whoever pays for the server chose these."""
        if use.key.get_secret_value():
            return use
        for server in self._registry.servers(spec.id):
            if server.key and base_url(server.url) == use.url and use.model in server.models:
                key = self._secret(server.key)
                if key is None:
                    raise EngineError(
                        f"{server.name} wants a key, and {server.key} is not set: start the playground with that "
                        "environment variable, or set the secret of that name on a Space."
                    )
                return use.model_copy(update={"key": key})
        return use

    def _remember(self, use: EndpointUse, sent_as: SentAs) -> None:
        if len(self._sent_as) >= REMEMBERED:
            del self._sent_as[next(iter(self._sent_as))]
        self._sent_as[use.url, use.model] = sent_as

"""Asks a server for one answer: in the best form that it takes, again where it was too busy, and tells what it says.

Both APIs come out as the same `Told`. Nothing is asked twice once a token has come. Knows no panel; called by `remote`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, cast

import httpx2
from huggingface_hub import AsyncInferenceClient

from playground.engines.remoting.connection import (
    AGENT,
    GarbageError,
    Patience,
    RefusedError,
    opened,
    plain_key,
    ready,
)
from playground.engines.remoting.course import Course
from playground.engines.remoting.forms import Form, Learnt, TextForm, after, fields, messages
from playground.engines.remoting.sentences import TOO_BUSY, EndlessError, StalledError, cause
from playground.engines.remoting.told import Told, read_chunk
from playground.errors import PromptError
from playground.types import EndpointUse, GenerationRequest, SentAs

DATA, DONE = "data:", "[DONE]"


@dataclass(frozen=True, slots=True)
class Question:
    """One request to one server.

    endpoint: with the url as the policy wrote it.
    token_ids: the prompt, empty where the server makes it of the messages.
    text: what comes to the same, if anything does.
    max_tokens: what the answer may have.
    """

    request: GenerationRequest
    endpoint: EndpointUse
    token_ids: tuple[int, ...]
    text: TextForm | None
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has begun to answer: how it was given the prompt, and when it was asked, by `perf_counter`."""

    sent_as: SentAs
    asked_at: float


async def ask(question: Question, learnt: Learnt, patience: Patience) -> AsyncGenerator[Accepted | Told, None]:
    """What the server tells, until the answer is over; closing it closes the connection.

    Raises:
        Exception: whatever `sentences` knows; the last chunk has a finish reason if none is raised.
    """
    url, model = question.endpoint.url, question.endpoint.model
    known = learnt.form(url, model)
    tries = 1
    while True:
        form = _possible(known, question)
        begun, asked_at = False, perf_counter()
        try:
            async with aclosing(_attempt(question, form, patience)) as chunks:
                async for told in chunks:
                    if not begun:
                        begun = True
                        learnt.keep(url, model, known)
                        yield Accepted(form.way, asked_at)
                    yield told
            return
        except Exception as error:
            again = None if begun else _again(error, known, form, tries, patience)
            if again is None:
                raise
        tries += again[0] == known
        known = again[0]
        await asyncio.sleep(again[1])


def _again(error: Exception, known: Form, form: Form, tries: int, patience: Patience) -> tuple[Form, float] | None:
    """How to ask once more, and in how many seconds; None where that would not help.

    What this prompt alone cannot be put in, the next one may: so what is known may be better than the form that failed.
    """
    other = after(form, error) if isinstance(error, RefusedError) else None
    if other is not None:
        return replace(other, way=known.way if other.way == form.way else other.way), 0.0
    pause = _pause(error, tries, patience)
    return None if pause is None else (known, pause)


def _possible(form: Form, question: Question) -> Form:
    """As it is, or the next that this prompt can be put in. Raises PromptError where it would lose the template."""
    if form.way == "text" and question.text is None:
        form = replace(form, way="messages")
    if not question.token_ids:
        form = replace(form, way="messages")
    if form.way == "messages" and question.request.options.template is not None:
        raise PromptError(
            "This server takes messages only and makes the prompt itself, so the template that you wrote cannot be "
            "used: take the model's own template, or another server."
        )
    return form


def _pause(error: Exception, tries: int, patience: Patience) -> float | None:
    """Seconds before the same is asked again; None where that would not help, or not soon."""
    error = cause(error)
    busy = isinstance(error, RefusedError) and error.status in TOO_BUSY
    unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
    if tries >= patience.tries or not (busy or unreachable):
        return None
    pause = patience.backoff_s * 2 ** (tries - 1)
    if isinstance(error, RefusedError) and error.retry_after.strip().isdecimal():
        pause = float(error.retry_after)
    return pause if pause <= patience.longest_wait_s else None


async def _attempt(question: Question, form: Form, patience: Patience) -> AsyncGenerator[Told, None]:
    """One request, and its answer with an end; what the server says without meaning is left out."""
    asked_at = asyncio.get_running_loop().time()
    longest = patience.answer_s(question.max_tokens)
    course = Course(question.max_tokens)
    async with aclosing(_chunks(question, form, patience)) as chunks:
        while not course.is_full:
            wait = patience.last_s if course.is_over else patience.between_s
            now = asyncio.get_running_loop().time()
            until = now + wait if course.has_begun else asked_at + patience.first_s
            try:
                async with asyncio.timeout_at(min(until, asked_at + longest)) as limit:
                    told = await anext(chunks)
            except StopAsyncIteration:
                break
            except Exception as error:
                if course.is_over:
                    break  # why the answer is over is known: what follows was only its cost
                if limit.expired() and until > asked_at + longest:
                    raise EndlessError(longest) from None
                if limit.expired():
                    raise StalledError(wait if course.has_begun else patience.first_s) from None
                raise error
            yield course.read(told)
    course.require_end()


def _chunks(question: Question, form: Form, patience: Patience) -> AsyncGenerator[Told, None]:
    return _chat(question, form, patience) if form.way == "messages" else _completion(question, form, patience)


async def _completion(question: Question, form: Form, patience: Patience) -> AsyncGenerator[Told, None]:
    endpoint = question.endpoint
    body = {"model": endpoint.model, **_prompt(question, form)}
    body |= fields(question.request.sampling, form, question.max_tokens)
    async with (
        opened("POST", f"{endpoint.url}/completions", endpoint.key, patience, body) as response,
        aclosing(cast(AsyncGenerator[str, None], response.aiter_lines())) as lines,
    ):
        async for line in lines:
            if not line.startswith(DATA):
                continue  # a comment that keeps the connection open, or another field of an event
            data = line.removeprefix(DATA).strip()
            if data == DONE:
                return
            yield read_chunk(_parsed(data))


def _prompt(question: Question, form: Form) -> dict[str, Any]:
    if form.way == "token_ids":
        return {"prompt": list(question.token_ids)}
    assert question.text is not None
    if question.text.adds_tokens:
        return {"prompt": question.text.text}
    return {"prompt": question.text.text, "add_special_tokens": False}


def _parsed(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise GarbageError("a line that is no JSON") from None


async def _chat(question: Question, form: Form, patience: Patience) -> AsyncGenerator[Told, None]:
    endpoint = question.endpoint
    client = AsyncInferenceClient(
        base_url=f"{endpoint.url}/chat/completions",  # so, for it would put /v1 into the address where it misses it
        api_key=plain_key(endpoint.key),
        timeout=cast(float, patience.timeout),  # handed on to httpx2 as it is
        headers={"user-agent": AGENT},
    )
    await ready()
    async with client:
        stream = await client.chat_completion(
            messages(question.request),
            model=endpoint.model,
            stream=True,
            extra_body=fields(question.request.sampling, form, question.max_tokens),
        )
        async with aclosing(cast(AsyncGenerator[Any, None], stream)):
            async for chunk in _readable(aiter(stream)):
                yield read_chunk(_plain(chunk))


async def _readable(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """huggingface_hub's chunks; its parser's failures say that there was none."""
    while True:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise GarbageError("a line that is no chunk of an answer") from None
        yield chunk


def _plain(value: Any) -> Any:
    """huggingface_hub's values as JSON has them, with the fields that it knows no name for."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in getattr(value, "__dict__", value).items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value

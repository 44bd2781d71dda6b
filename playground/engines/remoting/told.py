"""What a server tells with one chunk of its answer, whichever of its two APIs it is: text, why it ends, cost, tokens.

Reads JSON that a stranger wrote: what is not text where text belongs is refused, what is optional and odd is left out.
Knows no connection. Called by `asking`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeGuard

from playground.engines.remoting.connection import GarbageError
from playground.types import FinishReason

LIKELIEST = 5
UNKNOWN_ID = -1
SPELLED = 256
"""Characters of a token's spelling that are kept."""

MOST_TOKENS = 10**9
HIGHEST_ID = 2**31 - 1
"""Numbers beyond these are no count of tokens and no id: JSON's have no end, those of who reads them have."""

LENGTH = ("length", "max_tokens")
HELD_BACK = "content_filter"
THOUGHTS = ("reasoning_content", "reasoning")
GIVEN_UP = ("abort", "error", "cancelled")
CALLS = ("tool_calls", "function_call")
"""Fields with what a model asks of a program instead of answering."""


class ServerSaidError(Exception):
    """The server reported an error in the middle of its answer; the text is its own."""


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token as the server spells it, its probability 0 to 1, and the likeliest in its place, the best first."""

    text: str
    probability: float
    likeliest: tuple[tuple[str, float], ...] = ()
    token_id: int = UNKNOWN_ID


@dataclass(frozen=True, slots=True)
class Told:
    """
    thought: what a model thinks before it answers, which is no part of the answer.
    is_held_back: whether the answer ended because the server does not let the rest of it through.
    calls_tool: whether the model asks a program for something, instead of answering or before it goes on.
    usage: tokens of the prompt and of the answer so far. at: when it came, in seconds of `perf_counter`.
    """

    text: str = ""
    thought: str = ""
    finish_reason: FinishReason | None = None
    is_held_back: bool = False
    calls_tool: bool = False
    usage: tuple[int, int] | None = None
    tokens: tuple[ToldToken, ...] = ()
    token_ids: tuple[int, ...] = ()
    at: float = field(default_factory=perf_counter)

    @property
    def says_something(self) -> bool:
        """Whether a token came, or the end."""
        words = self.text or self.thought or self.calls_tool
        return bool(words or self.tokens or self.token_ids or self.finish_reason)

    @property
    def size(self) -> int:
        """What keeping it takes, in characters; at least one, so that nothing may be told for ever either."""
        return max(1, len(self.text) + len(self.thought), len(self.tokens), len(self.token_ids))


def read_chunk(payload: Any) -> Told:
    """A chunk of /completions or /chat/completions, as JSON has it.

    Raises:
        ServerSaidError: it is an error of the server's.
        GarbageError: it is no chunk.
    """
    if not isinstance(payload, Mapping):
        raise GarbageError("something that is no chunk of an answer")
    if error := payload.get("error"):
        raise ServerSaidError(said(error))
    choice = _first(payload.get("choices"))
    text, thought = _text(choice), _thought(choice)
    token_ids = _ids(choice.get("token_ids")) if text or not thought else ()
    return Told(
        text=text,
        thought=thought,
        finish_reason=_finish_reason(choice.get("finish_reason")),
        is_held_back=choice.get("finish_reason") == HELD_BACK,
        calls_tool=_calls_tool(choice),
        usage=_usage(payload.get("usage")),
        tokens=_tokens(choice.get("logprobs"), token_ids) if text or not thought else (),
        token_ids=token_ids,
    )


def _first(choices: Any) -> Mapping[str, Any]:
    """The answer that was asked for: it has the number 0, or none, and what others may come with it is not read."""
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, Mapping):
            raise GarbageError("a chunk without an answer in it")
        if choice.get("index") in (0, None):
            return choice
    return {}


def said(error: Any, depth: int = 5) -> str:
    """A server's error as a text, in whichever of the usual forms it came; of nests no deeper than those."""
    if isinstance(error, Mapping):
        error = next((error[key] for key in ("message", "error", "detail", "msg") if error.get(key)), "")
        return said(error, depth - 1) if depth else ""
    if isinstance(error, Sequence) and not isinstance(error, str):
        return "; ".join(filter(None, (said(each, depth - 1) for each in error))) if depth else ""
    return str(error)


def _text(choice: Mapping[str, Any]) -> str:
    holder = choice.get("delta") if "delta" in choice else choice
    if holder is None:
        return ""
    if not isinstance(holder, Mapping):
        raise GarbageError("a chunk without an answer in it")
    text = holder.get("content") if "delta" in choice else holder.get("text")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise GarbageError("a chunk whose answer is no text")
    return text


def _thought(choice: Mapping[str, Any]) -> str:
    holder = choice.get("delta") or choice
    return next((holder[name] for name in THOUGHTS if holder.get(name) and isinstance(holder[name], str)), "")


def _calls_tool(choice: Mapping[str, Any]) -> bool:
    holder = choice.get("delta") or choice
    return any(holder.get(name) for name in CALLS)


def _finish_reason(reason: Any) -> FinishReason | None:
    """Whatever it is called: the answer is over, and either it was cut or it was not."""
    if not reason:
        return None
    if reason in GIVEN_UP:
        raise ServerSaidError(f"the answer was given up ({reason})")
    return "length" if reason in LENGTH else "stop"


def _usage(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt, completion) if _is_number(prompt, MOST_TOKENS) and _is_number(completion, MOST_TOKENS) else None


def _ids(ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, list) or not all(_is_number(each, HIGHEST_ID) for each in ids):
        return ()
    return tuple(ids)


def _is_number(value: Any, most: int) -> TypeGuard[int]:
    """Whether it is a whole number from 0; JSON's true is none."""
    return type(value) is int and 0 <= value <= most


def _tokens(logprobs: Any, token_ids: Sequence[int]) -> tuple[ToldToken, ...]:
    if not isinstance(logprobs, Mapping):
        return ()
    try:
        tokens = _of_chat(logprobs["content"]) if logprobs.get("content") else _of_completion(logprobs)
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return ()  # a convenience: an answer without it is still an answer
    if len(tokens) != len(token_ids):
        return tuple(ToldToken(*token) for token in tokens)
    return tuple(ToldToken(*token, token_id) for token, token_id in zip(tokens, token_ids, strict=True))


_Scored = tuple[str, float, tuple[tuple[str, float], ...]]


def _of_chat(content: Sequence[Mapping[str, Any]]) -> list[_Scored]:
    return [
        (_spelled(each["token"]), _probability(each["logprob"]), _best((top["token"], top["logprob"]) for top in tops))
        for each in content
        for tops in [each.get("top_logprobs") or ()]
    ]


def _of_completion(logprobs: Mapping[str, Any]) -> list[_Scored]:
    tokens, own = logprobs["tokens"], logprobs["token_logprobs"]
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        (_spelled(token), _probability(logprob), _best((top or {}).items()))
        for token, logprob, top in zip(tokens, own, tops, strict=True)
    ]


def _best(tops: Any) -> tuple[tuple[str, float], ...]:
    found = [(_spelled(token), _probability(logprob)) for token, logprob in tops]
    return tuple(sorted(found, key=lambda each: -each[1])[:LIKELIEST])


def _spelled(token: Any) -> str:
    return str(token)[:SPELLED]


def _probability(logprob: Any) -> float:
    number = float(logprob)
    if math.isnan(number):
        raise ValueError("a probability that is none")
    return math.exp(min(0.0, number))

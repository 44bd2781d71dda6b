"""In which form a server is asked: token ids, text or messages, and with which extras; what a refusal says of that.

What was learnt is remembered for each server and model, for ten minutes, and never a key. Knows no connection. Called
by `asking`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from playground.engines.remoting.connection import RefusedError
from playground.engines.remoting.told import LIKELIEST
from playground.prompting.prompt import EncodedPrompt
from playground.types import GenerationRequest, SamplingParams, SentAs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USAGE, LOGPROBS, TOKEN_IDS = "stream_options", "logprobs", "return_token_ids"
OFF = {"top_k": -1, "repetition_penalty": 1.0}
"""Not of the standard. What switches them off is said too, or servers take what the checkpoint's files say."""

EXTRAS = frozenset((USAGE, LOGPROBS, TOKEN_IDS, *OFF))
"""What is asked for where a server has it, and done without where it has not."""

REMEMBERED = 256
"""Servers' models, of which the one that was asked longest ago is forgotten first."""
REMEMBERED_S = 600.0
"""Seconds that what was learnt of a server holds."""

LENGTH, NEWER_LENGTH = "max_tokens", "max_completion_tokens"

NO_ROUTE = (404, 405, 501)
WRONG = (400, 413, 415, 422)

CONTROLS = {
    "temperature": "set Temperature to 1",
    "top_p": "set Top p to 1",
    "top_k": "set Top k to 0",
    "repetition_penalty": "set Repetition penalty to 1",
    "stop": "remove the stop texts",
    "seed": "choose another server",
    "max_tokens": "choose another length for the answer",
}
"""What a refused field is to the user, and what to do without it."""

TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}length|too long|too many (input )?tokens"
    r"|max_model_len|inputs?\W* tokens \+",
    re.IGNORECASE,
)
_CHAT_ONLY = re.compile(r"chat model|not supported in the v1/completions|completions? (api|endpoint)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextForm:
    """A text that a server's tokenizer turns into a prompt's very ids.

    adds_tokens: whether the tokenizer may add its own (BOS and the like), as servers let it unless they are told.
    """

    text: str
    adds_tokens: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How a server is asked: at first with all that it might take.

    way: the ids are what the preview shows, the text comes to the same, of messages the server makes its own prompt.
    length: what it calls the length of the answer.
    """

    way: SentAs = "token_ids"
    extras: frozenset[str] = EXTRAS
    length: str = LENGTH


class Learnt:
    """The form in which each server takes each of its models' prompts.

    clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._forms: OrderedDict[tuple[str, str], tuple[Form, float]] = OrderedDict()

    def form(self, url: str, model: str) -> Form:
        """The one that was taken last, or else the best."""
        return self._known(url, model)[0]

    def forget(self, url: str) -> None:
        """Whoever serves there now may be another."""
        for place in [place for place in self._forms if place[0] == url]:
            self._forms.pop(place, None)

    def keep(self, url: str, model: str, form: Form) -> None:
        """The server has answered to this form; asked so again and again, it does not get more time to be asked so."""
        known, since = self._known(url, model)
        self._forms[url, model] = form, since if form == known else self._clock()
        self._forms.move_to_end((url, model))
        while len(self._forms) > REMEMBERED:
            self._forms.popitem(last=False)

    def _known(self, url: str, model: str) -> tuple[Form, float]:
        """The form, and since when; what was learnt long ago, a hiccup perhaps, is tried anew."""
        now = self._clock()
        form, since = self._forms.get((url, model), (Form(), now))
        return (form, since) if now - since < REMEMBERED_S else (Form(), now)


def text_form(prompt: EncodedPrompt, tokenizer: PreTrainedTokenizerBase) -> TextForm | None:
    """A text that becomes the prompt's ids in the server's tokenizer too; None where there is none.

    There is none where a message spells out a control token that shall stay text, for instance. A text without the
    BOS that the tokenizer adds goes before one that needs the server to leave it out: some servers do not listen.
    """
    bos = tokenizer.bos_token or ""
    candidates = [TextForm(prompt.text, adds_tokens=True)]
    if bos and prompt.text.startswith(bos):
        candidates.append(TextForm(prompt.text.removeprefix(bos), adds_tokens=True))
    candidates.append(TextForm(prompt.text, adds_tokens=False))
    return next((each for each in candidates if _ids(tokenizer, each) == prompt.token_ids), None)


def _ids(tokenizer: PreTrainedTokenizerBase, form: TextForm) -> tuple[int, ...]:
    return tuple(tokenizer(form.text, add_special_tokens=form.adds_tokens, verbose=False)["input_ids"])


def after(form: Form, refusal: RefusedError) -> Form | None:
    """The form to try once this one was refused; None where the refusal is of something else."""
    text = refusal.text
    if refusal.status in WRONG and not is_too_long(refusal):
        if form.length == LENGTH and _names(text, LENGTH) and _names(text, NEWER_LENGTH):
            return replace(form, length=NEWER_LENGTH)
        unwanted = {extra for extra in form.extras if _names(text, extra)}
        unwanted |= {LOGPROBS} if _names(text, "top_logprobs") else set()
        if unwanted & form.extras:
            return replace(form, extras=form.extras - unwanted)
        if refused_control(refusal):
            return None
    if form.way != "messages" and _has_no_completions(refusal):
        return replace(form, way="messages")
    if refusal.status not in WRONG or is_too_long(refusal):
        return None
    if form.way == "token_ids" and _names(text, "prompt"):
        return replace(form, way="text")
    if form.way == "text" and _names(text, "add_special_tokens"):
        return replace(form, way="messages")
    return _plainer(form)


def _plainer(form: Form) -> Form | None:
    """For a refusal without a reason: without what tells us more, then without what holds the sampling as it is set."""
    if form.extras - OFF.keys():
        return replace(form, extras=form.extras & OFF.keys())
    return replace(form, extras=frozenset()) if form.extras else None


def is_too_long(refusal: RefusedError) -> bool:
    """Whether it is about the prompt or the answer's length, and not about too many stop texts."""
    if refusal.status not in WRONG or _names(refusal.text, "stop"):
        return False
    return refusal.status == 413 or bool(TOO_LONG.search(refusal.text))


def refused_control(refusal: RefusedError) -> str:
    """The sampling field that the server does not take, "" if it is not about one."""
    if refusal.status not in WRONG:
        return ""
    return next((field for field in CONTROLS if _names(refusal.text, field)), "")


def _has_no_completions(refusal: RefusedError) -> bool:
    if refusal.status not in (*NO_ROUTE, *WRONG):
        return False
    if _CHAT_ONLY.search(refusal.text):
        return True
    return refusal.status in NO_ROUTE and "model" not in refusal.text.lower()


def _names(text: str, field: str) -> bool:
    """Whether a refusal is about this field: an English word must stand in quotes or at the end of a path."""
    if "_" in field or field in ("logprobs", "temperature"):
        return re.search(rf"(?<![A-Za-z_]){field}(?![A-Za-z_])", text) is not None
    quoted = rf"[\"'`.]{field}[\"'`:]"
    named = rf"(argument|parameter|field|supplied:|^)\s*{field}\b|\b{field} must be|{field}: "
    return re.search(f"{quoted}|{named}", text, re.IGNORECASE) is not None


def fields(sampling: SamplingParams, form: Form, max_tokens: int) -> dict[str, Any]:
    """What the request says beside model and prompt."""
    asked: dict[str, Any] = {
        "stream": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        form.length: max_tokens,
        "seed": sampling.seed,
    }
    if sampling.stop:
        asked["stop"] = list(sampling.stop)
    switched_on = {"top_k": sampling.top_k > 0, "repetition_penalty": sampling.repetition_penalty != 1}
    for field, off in OFF.items():
        if switched_on[field]:
            asked[field] = getattr(sampling, field)
        elif field in form.extras:
            asked[field] = off
    return asked | _extra_fields(form)


def _extra_fields(form: Form) -> dict[str, Any]:
    in_chat = form.way == "messages"
    asked: dict[str, Any] = {}
    if USAGE in form.extras:
        asked["stream_options"] = {"include_usage": True}
    if LOGPROBS in form.extras:
        asked |= {"logprobs": True, "top_logprobs": LIKELIEST} if in_chat else {"logprobs": LIKELIEST}
    if TOKEN_IDS in form.extras and not in_chat:
        asked["return_token_ids"] = True
    return asked


def messages(request: GenerationRequest) -> list[dict[str, str]]:
    """As every chat API has them."""
    return [{"role": each.role, "content": each.content} for each in request.messages]

"""What it means when ZeroGPU gives no GPU, or takes it back: the one place where its errors become ours.

The package `spaces` raises gradio's error with a title, which is known here by its looks, for gradio stays in the UI.
Called by `grant`. The titles are those of spaces 0.51.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from pickle import PicklingError

from playground.errors import EngineBusyError, EngineError, PlaygroundError

TAG = re.compile(r"<[^>]*>")
LINK = re.compile(r"\[([^\]]*)\]\((https?://[^)\s]*)\)")
WAIT = re.compile(r"Try again in (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")

EXAMPLES = "Try re-running outside of examples if it happened after clicking one"
"""Advice of `spaces` that means nothing here: the page has no examples that run by themselves."""

NO_GPU, OF_THE_SPACE = "No GPU was available", "Space app has reached its GPU limit"
"""Texts that come under the title of the quota too, where ZeroGPU could not tell who the visitor is."""

QUOTA = "The visitor's ZeroGPU quota does not suffice"
SHORTER = "ask for a shorter longest answer"


def sentence(error: BaseException) -> PlaygroundError:
    """An error of ours for whatever came out of a grant; ours are returned as they are."""
    if isinstance(error, PlaygroundError):
        return error
    title = str(getattr(error, "title", "") or "")
    said = _plain(str(getattr(error, "message", None) or error)).removesuffix(EXAMPLES).strip()
    if title in _BY_TITLE and said.startswith(NO_GPU):
        return _no_gpu(said)
    if (say := _BY_TITLE.get(title)) is not None:
        return say(said)
    if isinstance(error, PicklingError):
        return EngineError(
            f"The question cannot be sent to the GPU: {said.rstrip('.')}. This is the playground's fault."
        )
    if "Connection closed by visitor" in said:
        return EngineError("The page was left while it waited for a GPU: send again.")
    return EngineError(f"The GPU could not be had: {said.rstrip('.') or type(error).__name__}. Try again in a moment.")


def _quota(said: str) -> PlaygroundError:
    if said.startswith(OF_THE_SPACE):
        return EngineBusyError(
            "ZeroGPU could not tell whose quota to take, and the Space's own is used up: open the Space on "
            "huggingface.co, sign in there, load the page again, and send again."
        )
    if (wait := WAIT.search(said)) is not None:
        begin = said[: wait.start()].strip().rstrip(".")
        when = f"Try again in {_duration(wait)}"
    else:
        begin, when = said.rstrip("."), "Try again later"
    return EngineBusyError(f"{QUOTA}: {begin}. {when}, or {SHORTER}.{_more(begin)}")


def _more(said: str) -> str:
    """Who has more of it than this visitor."""
    if "Pro ZeroGPU" in said or "runs limit" in said:
        return ""
    if "free ZeroGPU" in said:
        return " A PRO account of Hugging Face has more of it."
    return " An account has more of it: if you have not signed in to Hugging Face, do."


def _too_long(said: str) -> PlaygroundError:
    return EngineError(f"ZeroGPU gives no GPU for so long: {said.rstrip('.')}. Do {SHORTER}, or a shorter prompt.")


def _worker(said: str) -> PlaygroundError:
    if said.rstrip(".") == "GPU task aborted":
        return EngineError(
            "The GPU was taken back in the middle of the answer: its time was over, or its process ended. Send again, "
            f"and {SHORTER}."
        )
    return EngineError(f"The process with the GPU failed: {said.rstrip('.')}. Send again; the log has the details.")


def _no_gpu(said: str) -> PlaygroundError:
    return EngineBusyError(f"No GPU was free: {said.rstrip('.')}. Send again in a minute.")


def _credits(said: str) -> PlaygroundError:
    return EngineBusyError(f"Your other ZeroGPU tasks hold your credits: {said.rstrip('.')}. Wait for them.")


def _client(said: str) -> PlaygroundError:
    return EngineBusyError(f"ZeroGPU refused: {said.rstrip('.')}. Load the page again, and send again in a minute.")


_BY_TITLE: Mapping[str, Callable[[str], PlaygroundError]] = {
    "ZeroGPU quota exceeded": _quota,
    "ZeroGPU illegal duration": _too_long,
    "ZeroGPU worker error": _worker,
    "ZeroGPU queue timeout": _no_gpu,
    "ZeroGPU client error": _client,
    "ZeroGPU pending credits exceeded": _credits,
}


def _plain(text: str) -> str:
    """Without tags, links as "text (address)", on one line."""
    words = LINK.sub(r"\1 (\2)", html.unescape(TAG.sub("", text)))
    return " ".join(words.split())


def _duration(wait: re.Match[str]) -> str:
    """Such as "2 hours 5 minutes", of the two largest units."""
    numbers = [int(group or 0) for group in wait.groups()]
    units = ("day", "hour", "minute", "second")
    parts = [f"{n} {unit}{'s' * (n != 1)}" for n, unit in zip(numbers, units, strict=True) if n]
    return " ".join(parts[:2]) or "a moment"

"""What ZeroGPU's refusals become: sentences that say what to do, without markup, whatever they look like."""

from __future__ import annotations

from pickle import PicklingError

import pytest

from playground.engines.zero_gpu.refusals import sentence
from playground.errors import ContextFullError, EngineBusyError, EngineError


class ToastError(Exception):
    """As gradio's error, whose own text is a repr."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(repr(message))
        self.title, self.message = title, message


QUOTA = "ZeroGPU quota exceeded"


def test_a_quota_says_when_to_come_again() -> None:
    said = "You have exceeded your free ZeroGPU quota (60s requested vs. 12s left). Try again in 1:02:03. "
    error = sentence(ToastError(QUOTA, said))
    assert isinstance(error, EngineBusyError)
    assert "(60s requested vs. 12s left). Try again in 1 hour 2 minutes, ask for a shorter longest answer" in str(error)
    assert "sign in to Hugging Face" in str(error)


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        ("0:00:00", "a moment"),
        ("0:00:01", "1 second"),
        ("0:12:00", "12 minutes"),
        ("2 days, 3:00:05", "2 days 3 hours"),
        ("1 day, 0:00:00", "1 day"),
    ],
)
def test_times_are_told_in_their_two_largest_units(wait: str, words: str) -> None:
    assert f"Try again in {words}, " in str(sentence(ToastError(QUOTA, f"You have exceeded it. Try again in {wait}.")))


def test_a_quota_without_a_time() -> None:
    error = sentence(ToastError(QUOTA, "You have exceeded your ZeroGPU runs limit. "))
    assert "runs limit. Try again later," in str(error)


def test_markup_becomes_plain_words() -> None:
    html = 'No GPU was available after 60s. <a style="x: y" href="https://hf.co/join">Create&nbsp;one</a> now'
    error = sentence(ToastError("ZeroGPU queue timeout", html))
    assert isinstance(error, EngineBusyError)
    assert "<" not in str(error)
    assert "Create one now" in str(error)
    markdown = "No GPU was available. [Subscribe](https://hf.co/pro) to get it"
    assert "Subscribe (https://hf.co/pro) to get it" in str(sentence(ToastError("ZeroGPU queue timeout", markdown)))


@pytest.mark.parametrize(
    ("title", "said", "words"),
    [
        ("ZeroGPU illegal duration", "The requested GPU duration (180s) is larger than the maximum allowed", "shorter"),
        ("ZeroGPU worker error", "GPU task aborted", "taken back"),
        ("ZeroGPU worker error", "ValueError", "ValueError. Send again"),
        ("ZeroGPU client error", "Expired ZeroGPU proxy token", "Load the page again"),
        ("ZeroGPU client error", "No GPU was available", "in a minute"),
        ("ZeroGPU pending credits exceeded", "You have too many credits allocated.", "Wait for them"),
        ("Something new", "Never heard of", "The GPU could not be had: Never heard of. Try again"),
    ],
)
def test_every_title_has_its_sentence(title: str, said: str, words: str) -> None:
    error = sentence(ToastError(title, said))
    assert isinstance(error, EngineError)
    assert words in str(error)
    assert str(error).endswith(".")


def test_errors_without_a_title() -> None:
    gone = sentence(RuntimeError("Connection closed by visitor while queueing"))
    assert "The page was left" in str(gone)
    assert "cannot be sent to the GPU" in str(sentence(PicklingError("Can't pickle <lambda>")))
    assert str(sentence(RuntimeError())) == "The GPU could not be had: RuntimeError. Try again in a moment."


def test_ours_stay_as_they_are() -> None:
    ours = ContextFullError("Too long by 7.", 7)
    assert sentence(ours) is ours

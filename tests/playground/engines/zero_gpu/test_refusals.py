"""What ZeroGPU's refusals become: sentences that say what to do, without markup, whatever they look like."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pickle import PicklingError
from types import SimpleNamespace
from typing import Any

import pytest
from spaces.zero import client
from spaces.zero.api import AuthLevel, QueueEvent, QuotaInfos, ScheduleMetadata

from playground.engines.zero_gpu.refusals import sentence
from playground.errors import ContextFullError, EngineBusyError, EngineError


class ToastError(Exception):
    """As gradio's error, whose own text is a repr."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(repr(message))
        self.title, self.message = title, message


QUOTA = "ZeroGPU quota exceeded"
NO_GPU = "No GPU was free: No GPU was available after 60s. Send again in a minute."

Refuse = Callable[..., Exception]


class Visitor:
    """A request of the page, with the token by which ZeroGPU knows whose it is."""

    def __init__(self, user: str) -> None:
        token = base64.urlsafe_b64encode(json.dumps({"user": "me"}).encode()).decode().rstrip("=")
        self.headers = type("Headers", (dict,), {})({"x-ip-token": f"head.{token}.signed", "x-gradio-user": user})


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """What the client of `spaces` raises for what the server that grants GPUs answers."""
    monkeypatch.setattr(client.config, "get_config", lambda: {"duration_factor": 1.5})
    monkeypatch.setattr(client, "info", lambda *said, **how: None)
    monkeypatch.setattr(client, "get_event", lambda: SimpleNamespace(alive=True))
    monkeypatch.setattr(client.utils, "self_cgroup_device_path", lambda: "/")

    def refused(answer: Any, visitor: Visitor | None, auth: AuthLevel | None = None) -> Exception:
        server = SimpleNamespace(schedule=lambda **asked: (answer, ScheduleMetadata(auth=auth, queuing_reason="node")))
        monkeypatch.setattr(client, "api_client", lambda: server)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            client.schedule(1, visitor, timedelta(seconds=40))
        return caught.value

    return refused


def used_up(minutes: int) -> QuotaInfos:
    return QuotaInfos(left=12, wait=timedelta(minutes=minutes))


def test_no_gpu_is_no_question_of_quotas_whatever_the_title(refuse: Refuse) -> None:
    unknown = refuse(iter([QueueEvent(event="failed")]), None)
    assert unknown.title == QUOTA  # type: ignore[attr-defined]
    assert str(sentence(unknown)) == NO_GPU
    known = str(sentence(refuse(iter([QueueEvent(event="failed")]), Visitor("app"))))
    assert known.startswith("No GPU was free: No GPU was available after 60s Create a free account (https://")
    assert known.endswith("priority in ZeroGPU queues. Send again in a minute.")
    assert "quota" not in known


def test_the_spaces_own_limit_is_not_the_visitors(refuse: Refuse) -> None:
    error = refuse(used_up(62), None)
    assert error.title == QUOTA  # type: ignore[attr-defined]
    assert "examples" in str(error)
    assert str(sentence(error)) == (
        "ZeroGPU could not tell whose quota to take, and the Space's own is used up: open the Space on huggingface.co, "
        "sign in there, load the page again, and send again."
    )


@pytest.mark.parametrize(
    ("auth", "gpu", "more"),
    [
        (None, "ZeroGPU", " An account has more of it: if you have not signed in to Hugging Face, do."),
        ("regular", "free ZeroGPU", " A PRO account of Hugging Face has more of it."),
        ("pro", "Pro ZeroGPU", ""),
    ],
)
@pytest.mark.parametrize("user", ["app", "a program"])
def test_nobody_is_told_to_become_what_they_are(
    auth: AuthLevel | None, gpu: str, more: str, user: str, refuse: Refuse
) -> None:
    assert str(sentence(refuse(used_up(62), Visitor(user), auth))) == (
        f"The visitor's ZeroGPU quota does not suffice: You have exceeded your {gpu} quota (60s requested vs. 12s "
        f"left). Try again in 1 hour 2 minutes, or ask for a shorter longest answer.{more}"
    )


def test_a_limit_of_runs_is_told(refuse: Refuse) -> None:
    told = str(sentence(refuse(used_up(0), Visitor("app"), "regular")))
    assert "quota does not suffice: You have exceeded your ZeroGPU runs limit. Try again later, or ask for" in told


def test_a_quota_says_when_to_come_again() -> None:
    said = "You have exceeded your free ZeroGPU quota (60s requested vs. 12s left). Try again in 1:02:03. "
    error = sentence(ToastError(QUOTA, said))
    assert isinstance(error, EngineBusyError)
    assert "(60s requested vs. 12s left). Try again in 1 hour 2 minutes, or ask for a shorter longest answer." in str(
        error
    )


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

"""The handlers of the devices view, on a scripted pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from fakes import FakePool, Script, spec

from model_registry.registry import Registry
from playground.errors import EngineClosedError
from playground.types import DeviceReport, DeviceUse, EngineLabel
from playground.ui.devices import UNEXPECTED, DeviceHandlers

GB = 10**9


def handlers(**scripts: Script) -> tuple[DeviceHandlers, FakePool]:
    pool = FakePool(Registry([spec("a"), spec("b")]), scripts)
    engines = ((EngineLabel("a"), DeviceUse("cuda:0", 24 * GB, 9 * GB, GB, GB, 0)),)
    pool.reports = (DeviceReport("cuda:0", 24 * GB, 9 * GB, engines),)
    return DeviceHandlers(pool.registry, pool), pool  # type: ignore[arg-type]


def pressed(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


async def test_the_clock_runs_from_opening_to_closing() -> None:
    own, _ = handlers()
    clock, picture, message = await own.open()
    assert clock.active
    assert "cuda:0" in picture
    assert message == ""
    assert not (await own.close()).active


async def test_only_models_that_are_there_or_on_their_way_or_failed_have_a_row() -> None:
    rows = {"ready": True, "loading": True, "failed": True, "local": False, "download": False, "too_large": False}
    for state, has_row in rows.items():
        own, _ = handlers(b=Script(state=state))  # type: ignore[arg-type]
        assert ('data-model="b"' in await own.picture()) is has_row


async def test_unloading_frees_the_model_and_says_so() -> None:
    own, pool = handlers()
    picture, message = await own.act(pressed(action="unload", model_id="a"))
    assert pool.unloaded == ["a"]
    assert "A is unloaded." in message
    assert 'data-model="a"' not in picture


async def test_a_model_that_answers_is_not_unloaded_and_says_so() -> None:
    own, pool = handlers()
    pool.running["a"] = 1
    picture, message = await own.act(pressed(action="unload", model_id="a"))
    assert 'role="alert"' in message
    assert "A is answering" in message
    assert 'data-action="unload" data-model="a"' in picture


async def test_a_load_is_cancelled_and_one_that_just_ended_is_not() -> None:
    own, pool = handlers(b=Script(state="loading"))
    _, message = await own.act(pressed(action="cancel", model_id="b"))
    assert pool.cancelled == ["b"]
    assert "Loading B was cancelled." in message
    _, message = await own.act(pressed(action="cancel", model_id="a"))
    assert pool.cancelled == ["b"]
    assert "A is loaded already." in message


@pytest.mark.parametrize(
    "data",
    [{}, {"action": "unload"}, {"action": "unload", "model_id": "<b>"}, {"action": "unload", "model_id": ["a"]}],
)
async def test_what_no_button_says_is_refused_with_a_sentence(data: dict[str, Any]) -> None:
    own, pool = handlers()
    _, message = await own.act(pressed(**data))
    assert 'role="alert"' in message
    assert "<b>" not in message
    assert (pool.unloaded, pool.cancelled) == ([], [])


async def test_data_that_is_no_object_is_refused_too() -> None:
    own, _ = handlers()
    _, message = await own.act(gr.EventData(None, "unload"))
    assert 'role="alert"' in message


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


async def test_errors_are_sentences_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    own, pool = handlers()
    monkeypatch.setattr(pool, "memory", raising(EngineClosedError("The playground is shutting down.")))
    assert "The playground is shutting down." in await own.picture()
    monkeypatch.setattr(pool, "unload", raising(RuntimeError("a secret")))
    _, message = await own.act(pressed(action="unload", model_id="a"))
    assert UNEXPECTED in message
    assert "secret" not in message


async def test_where_strangers_come_nobody_unloads_what_is_everybodys() -> None:
    own, pool = handlers()
    theirs = DeviceHandlers(pool.registry, pool, may_act=False)  # type: ignore[arg-type]
    picture, message = await theirs.act(pressed(action="unload", model_id="a"))
    assert "others use them too" in message
    assert pool.unloaded == []
    assert "<button" in await own.picture()
    assert "<button" not in picture
    assert 'data-model="a"' in picture

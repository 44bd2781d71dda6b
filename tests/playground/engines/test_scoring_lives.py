"""What may befall a scoring: a full device, a fault, an end, nobody who waits; and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from engine_room import GREEDY, Gate, Kind, answer, ask, until
from scoring_room import House, llama_house, scores, tokens_of

from playground.engines import scoring
from playground.errors import EngineClosedError, EngineError, OutOfMemoryError


@pytest.fixture
async def llama(kind: Kind) -> AsyncIterator[House]:
    async with llama_house(kind) as house:
        yield house


async def test_a_full_device_is_a_sentence_and_the_engine_goes_on(
    llama: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(**GREEDY)
    token_ids = await tokens_of(llama.engine, request)
    expected = await llama.engine.score(request, token_ids)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_places", full)
        with pytest.raises(OutOfMemoryError, match="The device is full") as raised:
            await llama.engine.score(request, token_ids)
    assert raised.value.__cause__ is None
    assert await llama.engine.score(request, token_ids) == expected
    assert await tokens_of(llama.engine, request) == token_ids


async def test_a_fault_is_a_sentence_and_the_log_has_the_rest(
    llama: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(scoring, "_places", broken)
    with pytest.raises(EngineError, match="TINY failed: no such thing"):
        await llama.engine.score(ask(), (5, 6))
    assert "Traceback" in caplog.text


async def test_close_ends_it_and_those_that_wait(llama: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SCORED_TOKENS", 1)
    gate = hold(monkeypatch)
    scoring_now = [asyncio.create_task(llama.engine.score(ask(), (5,) * 50)) for _ in range(3)]
    await until(lambda: gate.holds)
    closing = asyncio.create_task(llama.engine.close())
    await until(lambda: llama.engine._scorer._stopped.is_set())
    gate.open()
    await closing
    for ended in await asyncio.gather(*scoring_now, return_exceptions=True):
        assert isinstance(ended, EngineClosedError)
    with pytest.raises(EngineClosedError, match="TINY was stopped"):
        await llama.engine.score(ask(), (5,))


async def test_what_nobody_waits_for_ends_at_the_next_step(llama: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SCORED_TOKENS", 1)
    gate = hold(monkeypatch)
    given_up = asyncio.create_task(llama.engine.score(ask(), (5,) * 200))
    await until(lambda: gate.holds)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    other = asyncio.create_task(llama.engine.score(ask(), (5, 6)))
    gate.open()
    assert len(scores(await other)) == 2
    assert gate.passed <= 1 + 2


class Steps:
    """Holds the scoring thread before the first step's figures; counts those that went by."""

    def __init__(self) -> None:
        self.gate = torch.nn.Identity()
        self._gate = Gate(self.gate)
        self._gate.shut()
        self.passed = 0

    @property
    def holds(self) -> bool:
        return self._gate.holds

    def open(self) -> None:
        self._gate.open()


def hold(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps, places = Steps(), scoring._places

    def held(logits: torch.Tensor, came: torch.Tensor) -> Any:
        steps.gate(logits)
        steps.passed += 1
        return places(logits, came)

    monkeypatch.setattr(scoring, "_places", held)
    return steps


async def test_nothing_is_left_behind(llama: House) -> None:
    request = ask(**GREEDY)
    token_ids = await tokens_of(llama.engine, request)
    before = {name: id(module) for name, module in llama.model.named_modules()}
    for _ in range(3):
        await llama.engine.score(request, token_ids)
    assert {name: id(module) for name, module in llama.model.named_modules()} == before
    assert not llama.engine._scorer._running
    assert await answer(llama.engine, request) == await answer(llama.engine, request)

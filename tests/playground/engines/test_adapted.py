"""A model and the same model with adapters, in engines over one set of weights: what each answers, and undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapted_room import adapters, attach, base_engine, using
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    Kind,
    answer,
    ask,
    chunks_of,
    generated,
    make_engine,
    spread,
    tiny_llama,
)
from shared_weights import with_peft
from transformers import PreTrainedModel

from playground.adapters.facts import CheckedAdapter
from playground.engines.sharded import ShardedEngine
from playground.errors import AdapterError, EngineClosedError, EngineError
from playground.types import AdapterUse, GenerationRequest

LENGTH = 24
LONG = {"max_new_tokens": 200, **GREEDY}


@dataclass
class House:
    """A base engine and two adapters for it; `plain` is a model like the base's, that runs nowhere."""

    model: PreTrainedModel
    plain: PreTrainedModel
    engine: Any
    first: CheckedAdapter
    second: CheckedAdapter

    def peft(self, adapter: CheckedAdapter) -> PreTrainedModel:
        return with_peft(deepcopy(self.plain), adapter.folder)


def greedy(question: str, adapter: CheckedAdapter | None = None, scale: float = 1.0, **more: Any) -> GenerationRequest:
    request = ask(question, **{"max_new_tokens": LENGTH, **GREEDY, **more})
    return request if adapter is None else using(request, adapter, scale)


@pytest.fixture(params=["batched", "sharded", "spread"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """`spread`: over two devices, as far as accelerate can tell."""
    plain = tiny_llama()
    model = deepcopy(plain)
    if request.param == "spread":
        model = spread(model, tmp_path / "offloaded")
    kind: Kind = "batched" if request.param == "batched" else "sharded"
    first, second = adapters(tmp_path, plain, ["q_proj", "v_proj"], ["down_proj"])
    house = House(model, plain, base_engine(model, kind), first, second)
    yield house
    await house.engine.close()


async def test_eight_requests_at_once_over_the_base_and_two_adapters_answer_as_each_alone(house: House) -> None:
    peft = [house.plain, house.peft(house.first), house.peft(house.second)]
    alone = [[generated(model, question, max_new_tokens=LENGTH) for question in QUESTIONS] for model in peft]
    assert all(len({answers[i] for answers in alone}) == 3 for i in range(len(QUESTIONS)))
    assert [await answer(house.engine, greedy(question)) for question in QUESTIONS] == alone[0]
    views = await asyncio.gather(attach(house.engine, house.first), attach(house.engine, house.second))
    serving = [(house.engine, None), (views[0], house.first), (views[1], house.second)]
    mixed = [(serving[i % 3], question) for i, question in enumerate(QUESTIONS)]
    said = await asyncio.gather(*(answer(engine, greedy(q, adapter)) for (engine, adapter), q in mixed))
    assert said == [alone[i % 3][i] for i in range(len(QUESTIONS))]
    for (engine, adapter), expected in zip(serving, alone, strict=True):
        assert [await answer(engine, greedy(question, adapter)) for question in QUESTIONS] == expected
    await asyncio.gather(*(view.close() for view in views))
    assert [await answer(house.engine, greedy(question)) for question in QUESTIONS] == alone[0]


async def test_a_view_is_an_engine_of_its_bases_kind(house: House) -> None:
    view = await attach(house.engine, house.first)
    assert type(view) is type(house.engine)
    assert view.model_id == house.engine.model_id
    assert view.alive


async def test_a_seed_answers_the_same_through_a_view_whoever_else_is_answered(house: House) -> None:
    requests = [using(ask(question, temperature=1.0, seed=n), house.first) for n, question in enumerate(QUESTIONS)]
    kind: Kind = "sharded" if isinstance(house.engine, ShardedEngine) else "batched"
    alone = make_engine(house.peft(house.first), kind=kind)
    expected = [await answer(alone, request.model_copy(update={"adapter": None})) for request in requests]
    await alone.close()
    view = await attach(house.engine, house.first)
    base = [answer(house.engine, ask(question, temperature=1.0)) for question in QUESTIONS]
    said = await asyncio.gather(*(answer(view, request) for request in requests), *base)
    assert said[: len(QUESTIONS)] == expected


async def test_attaching_and_detaching_change_no_running_answer(house: House) -> None:
    whole = generated(house.plain, QUESTIONS[0], max_new_tokens=100)
    adapted = generated(house.peft(house.second), QUESTIONS[0], max_new_tokens=100)
    other = await attach(house.engine, house.second)
    gate = Gate(house.model)
    gate.shut()
    running = asyncio.create_task(answer(house.engine, greedy(QUESTIONS[0], max_new_tokens=100)))
    beside = asyncio.create_task(answer(other, greedy(QUESTIONS[0], house.second, max_new_tokens=100)))
    for _ in range(3):
        await gate.step()
        view = await attach(house.engine, house.first)
        assert await answer(view, greedy("x", house.first))
        await gate.step()
        await view.close()
    gate.open()
    assert await running == whole
    assert await beside == adapted


async def test_an_end_of_one_view_leaves_the_others_alone(house: House) -> None:
    views = [await attach(house.engine, adapter) for adapter in (house.first, house.second)]
    expected = await answer(house.engine, greedy("x", max_new_tokens=200))
    running = asyncio.create_task(answer(house.engine, greedy("x", max_new_tokens=200)))
    stream = views[0].stream(using(ask("x", "this", **LONG), house.first))
    await anext(stream)
    await views[1].abort("this")
    assert (await anext(stream)).finish_reason is None
    await views[0].abort("this")
    assert [chunk async for chunk in stream][-1].finish_reason == "abort"
    closed = views[0].stream(using(ask("x", **LONG), house.first))
    beside = asyncio.create_task(answer(views[1], greedy("x", house.second)))
    await anext(closed)
    await views[0].close()
    with pytest.raises(EngineClosedError):
        [chunk async for chunk in closed]
    assert not views[0].alive
    assert await beside == generated(house.peft(house.second), "x", max_new_tokens=LENGTH)
    assert await running == expected


async def test_two_scales_of_one_adapter_answer_at_once(house: House) -> None:
    scales = (0.0, 0.5, 1.0, 2.0)
    views = [await attach(house.engine, house.first, scale) for scale in scales]
    said = await asyncio.gather(
        *(answer(view, greedy("x", house.first, scale)) for view, scale in zip(views, scales, strict=True))
    )
    assert said[0] == generated(house.plain, "x", max_new_tokens=LENGTH)
    assert said[2] == generated(house.peft(house.first), "x", max_new_tokens=LENGTH)
    assert len(set(said)) == len(scales)


async def test_nobody_gets_an_answer_from_another_adapter(house: House) -> None:
    view = await attach(house.engine, house.first)
    own = house.first.use()
    wrong = [None, house.second.use(), house.first.use(0.5), own.model_copy(update={"revision": "main"})]
    for adapter in wrong:
        with pytest.raises(EngineError, match=r"runs with the adapter q_proj .* at scale 1 here"):
            await chunks_of(view, ask().model_copy(update={"adapter": adapter}))
    for adapter in (own, AdapterUse(id="", revision="")):
        with pytest.raises(EngineError, match=r"runs with no adapter here, but the adapter .* was asked for"):
            await chunks_of(house.engine, using(ask(), adapter))


async def test_a_view_takes_no_second_adapter(house: House) -> None:
    view = await attach(house.engine, house.first)
    with pytest.raises(AdapterError, match="takes no second one"):
        await attach(view, house.second)


async def test_an_engine_of_its_own_weights_takes_no_adapter(house: House) -> None:
    engine = make_engine(tiny_llama())
    with pytest.raises(AdapterError, match="takes no adapters"):
        await attach(engine, house.first)
    await engine.close()

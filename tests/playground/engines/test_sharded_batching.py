"""Who is in the padded batch: in order, together where it helps, never more than rows and cache allow."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from engine_room import (
    GREEDY,
    QUESTIONS,
    Gate,
    answer,
    ask,
    assert_free,
    chunks_of,
    generated,
    make_engine,
    rows_in,
    tiny_llama,
    until,
)
from transformers import LlamaForCausalLM

from playground.engines.decoding.padded_batch import Row, padded_tokens
from playground.engines.decoding.row_sampling import GREEDY as GREEDY_ROW
from playground.engines.decoding.sharded_loop import ShardedLoop
from playground.engines.sharded import ShardedEngine

PER_TOKEN = 2 * 2 * 2 * 8 * 4
"""Keys and values, layers, KV heads, head width, float32."""


class Shapes:
    """(rows, columns) of every step of a model that an engine has made since."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.seen: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        self.seen.append(tuple(kwargs["input_ids"].shape))


def sharded(model: LlamaForCausalLM, **options: int) -> ShardedEngine:
    return make_engine(model, kind="sharded", **options)


def waiting(engine: ShardedEngine) -> int:
    return len(engine._loop._waiting)


async def test_short_prompts_that_wait_are_read_in_one_step() -> None:
    model = tiny_llama()
    gate, shapes = Gate(model), Shapes(model)
    engine = sharded(model)
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, ask("x", **GREEDY)))]
    await until(lambda: gate.holds)
    tasks += [asyncio.create_task(answer(engine, ask(question, **GREEDY))) for question in QUESTIONS[:4]]
    await until(lambda: waiting(engine) == 4)
    shapes.seen.clear()
    gate.open()
    answers = await asyncio.gather(*tasks)
    await engine.close()
    reads = [shape for shape in shapes.seen if shape[1] > 1]
    assert [rows for rows, _ in reads] == [4]
    assert shapes.seen[shapes.seen.index(reads[0]) + 1] == (5, 1)
    assert answers == [generated(tiny_llama(), question, max_new_tokens=24) for question in ["x", *QUESTIONS[:4]]]


async def test_a_prompt_that_would_make_the_step_too_long_is_read_after_it() -> None:
    """One that is short does not wait until the long one beside it is read."""
    model = tiny_llama()
    gate, shapes = Gate(model), Shapes(model)
    engine = sharded(model, max_batch_tokens=64)
    gate.shut()
    tasks = [asyncio.create_task(answer(engine, ask("x", **GREEDY)))]
    await until(lambda: gate.holds)
    for count, question in enumerate(("y" * 2, "y" * 40, "y" * 3), 1):
        tasks.append(asyncio.create_task(answer(engine, ask(question, **GREEDY))))
        await until(lambda count=count: waiting(engine) == count)  # type: ignore[misc]
    shapes.seen.clear()
    gate.open()
    await asyncio.gather(*tasks)
    await engine.close()
    assert [shape for shape in shapes.seen if shape[1] > 1] == [(1, 2), (1, 40), (1, 3)]


async def test_a_long_prompt_is_read_in_pieces_between_which_answers_go_on() -> None:
    model = tiny_llama()
    gate, shapes = Gate(model), Shapes(model)
    engine = sharded(model, max_batch_tokens=32)
    gate.shut()
    first = asyncio.create_task(answer(engine, ask("x", max_new_tokens=60, **GREEDY)))
    await until(lambda: gate.holds)
    second = asyncio.create_task(answer(engine, ask("z" * 100, **GREEDY)))
    await until(lambda: waiting(engine) == 1)
    shapes.seen.clear()
    gate.open()
    answers = await asyncio.gather(first, second)
    await engine.close()
    start = next(n for n, shape in enumerate(shapes.seen) if shape[1] > 1)
    assert shapes.seen[start : start + 8] == [(1, 32), (1, 1), (1, 32), (1, 1), (1, 32), (1, 1), (1, 4), (2, 1)]
    assert answers[0] == generated(tiny_llama(), "x", max_new_tokens=60)
    assert answers[1] == generated(tiny_llama(), "z" * 100, max_new_tokens=24)


async def test_nobody_overtakes_one_that_waits_for_cache() -> None:
    """The second does not fit beside the first, the third would."""
    model = tiny_llama()
    gate = Gate(model)
    engine = sharded(model, kv_tokens=240)
    gate.shut()
    sizes = {"a": 100, "b": 200, "c": 20}
    order: list[str] = []

    async def one(question: str, most: int) -> None:
        async for _ in engine.stream(ask(question, max_new_tokens=most, **GREEDY)):
            order.extend([question] if question not in order else [])

    tasks = []
    for number, (question, most) in enumerate(sizes.items()):
        tasks.append(asyncio.create_task(one(question, most)))
        await until(lambda number=number: len(engine._loop._live) == number + 1)  # type: ignore[misc]
        await until(lambda: gate.holds)
    for _ in range(3):
        await gate.step()
    assert waiting(engine) == 2
    gate.open()
    await asyncio.gather(*tasks)
    await assert_free(engine)
    await engine.close()
    assert order == ["a", "b", "c"]


async def test_rows_are_never_more_than_allowed_and_the_others_follow_in_order() -> None:
    model = tiny_llama()
    shapes = Shapes(model)
    engine = sharded(model, max_concurrent=3)
    answers = await asyncio.gather(*(answer(engine, ask(question, **GREEDY)) for question in QUESTIONS))
    await engine.close()
    assert max(rows for rows, _ in shapes.seen) == 3
    assert answers == [generated(tiny_llama(), question, max_new_tokens=24) for question in QUESTIONS]


def cache_room(loop: ShardedLoop) -> int:
    """Bytes of all buffers that hold, or could hold, a context."""
    batches = [batch for batch in (loop._entering, loop._running) if batch is not None]
    return sum(buffer.nbytes for batch in batches for layer in batch._layers for buffer in layer._buffers)


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_comes_and_goes_everyone_gets_the_answer_given_alone(seed: int) -> None:
    """Prompts and answers of all lengths, some cut short: rows join, leave and are padded anew all the time."""
    chance = random.Random(seed)
    model = tiny_llama()
    engine = sharded(model, kv_tokens=600, max_concurrent=5, max_batch_tokens=24)
    seen: list[tuple[int, int, int]] = []

    def note(*_: object) -> None:
        (_, (used, reserved)) = next(iter(engine._loop.kv_use().items()))
        seen.append((cache_room(engine._loop), used, reserved))

    requests = [
        ask("y" * chance.choice([1, 5, 30, 90]), max_new_tokens=chance.randint(1, 50), temperature=1.0, seed=n)
        for n in range(14)
    ]
    alone = [await answer(engine, request) for request in requests]
    handle = model.register_forward_pre_hook(note)

    async def one(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, 0.1))
        if number % 4:
            assert await answer(engine, requests[number]) == alone[number]
            return
        said = ""
        async for chunk in engine.stream(requests[number]):
            said += chunk.delta
            if len(said) > 3:
                await engine.abort(requests[number].request_id)
        assert alone[number].startswith(said.rstrip("\ufffd"))

    await asyncio.gather(*(one(number) for number in range(len(requests))))
    handle.remove()
    await assert_free(engine)
    await engine.close()
    assert all(used <= room <= reserved == 600 * PER_TOKEN for room, used, reserved in seen)
    assert max(used for _, used, _ in seen) > 0


async def test_the_cache_of_one_that_leaves_is_free_before_the_next_step() -> None:
    model = tiny_llama()
    gate = Gate(model)
    engine = sharded(model)
    gate.shut()
    long = asyncio.create_task(chunks_of(engine, ask("z" * 100, max_new_tokens=50, **GREEDY)))
    await until(lambda: gate.holds)
    short = asyncio.create_task(answer(engine, ask("x", max_new_tokens=50, **GREEDY)))
    while len(rows_in(engine._loop._running)) < 2:
        await gate.step()
    await gate.step()
    columns = engine._loop._running.columns
    assert columns > 100
    assert engine.memory()[0].kv_used_bytes >= 2 * 100 * PER_TOKEN
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    await gate.step()
    assert engine.memory()[0].kv_used_bytes < 20 * PER_TOKEN
    gate.open()
    assert await short == generated(tiny_llama(), "x", max_new_tokens=50)
    await engine.close()


def test_padded_rows_take_as_many_tokens_as_the_longest_may_come_to() -> None:
    rows = [Row([1, 2, 3], 10, GREEDY_ROW), Row([1], 2, GREEDY_ROW)]
    assert padded_tokens([]) == 0
    assert padded_tokens(rows) == 26
    assert padded_tokens(rows[1:]) == 3

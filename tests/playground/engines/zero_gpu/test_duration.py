"""For how long the GPU is asked: more for longer answers, for more models and for heavier ones, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from playground.engines.zero_gpu.duration import LONGEST_S, SHORTEST_S, START_S, Costs
from playground.engines.zero_gpu.turn import Asked, Turn
from playground.types import AdapterUse, GenerationRequest, Message, SamplingParams

GB = 10**9
COSTS = Costs({"krutrim": 14 * GB, "kullm3": 22 * GB}, {"krutrim": 4096, "kullm3": 4096})


def ask(model_id: str, tokens: int, text: str = "hi", adapter: str = "") -> GenerationRequest:
    return GenerationRequest(
        model_id=model_id,
        adapter=AdapterUse(id=adapter, revision="r") if adapter else None,
        messages=(Message(role="user", content=text),),
        sampling=SamplingParams(max_new_tokens=tokens),
    )


def seconds(requests: Sequence[GenerationRequest], costs: Costs = COSTS) -> int:
    return costs(Turn(tuple(Asked(request) for request in requests), Path()))


def test_the_usual_turn_of_both_real_models() -> None:
    asked = [ask("krutrim", 512), ask("kullm3", 512)]
    # 36 GB from the disk, and 512 times a step of each: 16 and 24 ms for the weights, 15 and 15 ms besides.
    assert seconds(asked) == pytest.approx(START_S + 18 + 512 * (0.040 + 0.030), abs=1)


def test_the_longest_answer_and_the_number_of_models_decide() -> None:
    one, two = [ask("krutrim", 256)], [ask("krutrim", 256), ask("kullm3", 64)]
    assert seconds([ask("krutrim", 64)]) < seconds(one) < seconds(two)
    assert seconds(two) == seconds([ask("krutrim", 64), ask("kullm3", 256)])


def test_questions_to_the_same_engine_share_its_steps() -> None:
    assert seconds([ask("krutrim", 256)] * 2) == seconds([ask("krutrim", 256)])
    assert seconds([ask("krutrim", 256), ask("krutrim", 256, adapter="formal")]) > seconds([ask("krutrim", 256)])


def test_a_long_prompt_takes_longer_and_no_more_than_the_context_is_read() -> None:
    long, longer = ask("krutrim", 64, "क" * 4096), ask("krutrim", 64, "क" * 400_000)
    assert seconds([ask("krutrim", 64)]) < seconds([long]) == seconds([longer])


def test_no_answer_is_longer_than_the_context() -> None:
    assert seconds([ask("krutrim", 4096)]) == seconds([ask("krutrim", 10**6)])


def test_it_stays_within_bounds() -> None:
    tiny = Costs({"tiny": 10**6}, {"tiny": 100})
    assert seconds([ask("tiny", 1)], tiny) == SHORTEST_S
    assert seconds([ask("krutrim", 4096), ask("kullm3", 4096)]) == LONGEST_S
    assert seconds([], tiny) == SHORTEST_S
    assert isinstance(seconds([ask("krutrim", 100)]), int)

"""All panels of a turn are answered in one grant, at the same time, as engines of this process would answer them."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from grant_room import ENDLESS, GREETINGS, MODELS, Listener, ask, both, library, placed, registry, space

from playground.engines.adapted import SharedWeights
from playground.engines.checkpoints.loader import load_engine
from playground.errors import EngineError, PlaygroundError, UnknownModelError
from playground.types import AdapterUse, GenerationRequest, LoadProgress

WARM = {"temperature": 0.9, "max_new_tokens": 60}


async def answers_of_engines(requests: list[GenerationRequest]) -> list[str]:
    texts = []
    for request in requests:
        spec = registry().get(request.model_id)
        engine = await asyncio.to_thread(load_engine, spec, placed()[spec.id].placement, lambda progress: None)
        try:
            texts.append("".join([chunk.delta async for chunk in engine.stream(request)]))
        finally:
            await engine.close()
    return texts


async def test_two_panels_share_one_grant_and_answer_as_engines_do() -> None:
    one = space()
    requests = both(**WARM)
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    told = [await listener.done() for listener in listeners]
    assert told == await answers_of_engines(requests)
    assert all(told)
    assert len(one.rehearsal.grants) == len(one.rehearsal.workers) == 1
    usage = [listener.chunks[-1].usage for listener in listeners]
    ids = [[token for chunk in listener.chunks for token in chunk.token_ids] for listener in listeners]
    assert [use and use.completion_tokens for use in usage] == [len(tokens) for tokens in ids]
    await one.pool.close()


async def test_both_speak_at_the_same_time() -> None:
    one = space()
    requests = both(**{**ENDLESS, "max_new_tokens": 150})
    one.pool.expect(requests)
    listeners = [Listener(one.pool, request) for request in requests]
    assert [len(await listener.done()) > 100 for listener in listeners] == [True, True]
    numbers = [said.number for said in one.heard if not isinstance(said.event, LoadProgress)]
    assert len([*itertools.groupby(numbers)]) > 6
    await one.pool.close()


async def test_what_nobody_announced_is_a_turn_of_its_own() -> None:
    one = space()
    listeners = [Listener(one.pool, request) for request in both()]
    assert all([await listener.done() for listener in listeners])
    assert len(one.rehearsal.grants) == 2
    await one.pool.close()


async def test_the_same_question_may_be_asked_again() -> None:
    one = space()
    request = ask("demo-kullm3")
    one.pool.expect([request])
    first = await Listener(one.pool, request).done()
    assert await Listener(one.pool, request).done() == first
    assert len(one.rehearsal.grants) == 2
    await one.pool.close()


async def test_an_alias_names_the_model() -> None:
    one = space()
    request = ask("demo-kullm3").model_copy(update={"model_id": " DEMO-KULLM3 "})
    one.pool.expect([request])
    assert await Listener(one.pool, request).done()
    await one.pool.close()


async def test_a_worker_that_is_used_again_has_its_engines_still() -> None:
    one = space(reuse=True)
    told = []
    for turn in ("first", "second"):
        requests = both(turn)
        one.pool.expect(requests)
        told.append([await listener.done() for listener in [Listener(one.pool, request) for request in requests]])
        await asyncio.to_thread(one.pool._running.copy().pop().ended.wait)
    assert told[0] == told[1]
    assert len(one.rehearsal.grants) == 2
    assert len(one.rehearsal.workers) == 1
    await one.pool.close()
    one.rehearsal.close()
    assert one.is_still()


async def test_an_adapter_that_lay_there_before_answers_beside_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = library().check(registry().get("demo-kullm3"), "kullm3-casual")
    with_adapter = ask("demo-kullm3").model_copy(update={"adapter": checked.use()})
    expected = await answer_with_adapter(with_adapter)
    one = space()

    def refuse(*_: object) -> None:
        raise AssertionError("it should lie there already")

    monkeypatch.setattr(SharedWeights, "_read", refuse)
    requests = [ask("demo-kullm3"), with_adapter]
    one.pool.expect(requests)
    plain, adapted = [await listener.done() for listener in [Listener(one.pool, request) for request in requests]]
    assert adapted == expected
    assert plain != adapted
    assert len(one.rehearsal.grants) == 1
    await one.pool.close()


async def answer_with_adapter(request: GenerationRequest) -> str:
    spec = registry().get(request.model_id)
    assert request.adapter is not None
    checked = library().check(spec, request.adapter.id)
    engine = await asyncio.to_thread(load_engine, spec, placed()[spec.id].placement, lambda progress: None)
    view = await asyncio.to_thread(engine.attach, checked, 1.0, 1024)
    try:
        return "".join([chunk.delta async for chunk in view.stream(request)])
    finally:
        await engine.close()


async def test_an_adapter_that_cannot_be_had_costs_its_own_panel_only() -> None:
    one = space()
    missing = AdapterUse(id="kullm3-casual", revision="sha256:another")
    requests = [ask("demo-krutrim"), ask("demo-kullm3").model_copy(update={"adapter": missing})]
    one.pool.expect(requests)
    plain, refused = (Listener(one.pool, request) for request in requests)
    assert await plain.done()
    with pytest.raises(PlaygroundError, match="has changed"):
        await refused.done()
    assert len(one.turns[0].asked) == 1
    await one.pool.close()


async def test_only_what_lies_there_can_answer() -> None:
    one = space()
    assert one.pool.status("kullm3").state == "not_here"
    assert one.pool.status("kullm3").detail == "not on this Space"
    assert [one.pool.status(model_id).state for model_id in MODELS] == ["ready", "ready"]
    request = ask("demo-kullm3").model_copy(update={"model_id": "kullm3"})
    one.pool.expect([request, ask("demo-krutrim")])
    with pytest.raises(EngineError, match="KULLM3 is not on this Space: choose Krutrim stand-in or KULLM3 stand-in"):
        await Listener(one.pool, request).done()
    with pytest.raises(UnknownModelError):
        one.pool.preload(["nobody"])
    assert not one.rehearsal.grants
    await one.pool.close()


async def test_it_tells_what_a_grant_takes_and_what_it_cannot_do() -> None:
    one = space()
    (report,) = one.pool.memory()
    assert [label.model_id for label, _ in report.engines] == [*MODELS]
    assert all(use.weight_bytes > 0 and use.kv_bytes > 0 for _, use in report.engines)
    with pytest.raises(EngineError, match="stays"):
        await one.pool.unload("demo-kullm3")
    with pytest.raises(EngineError, match="another grant"):
        await one.pool.score(ask("demo-kullm3"), (1, 2))
    assert (await one.pool.encoder("demo-kullm3")).spec.id == "demo-kullm3"
    assert {choice.id for choice in one.pool.adapters("demo-kullm3")} == {"kullm3-casual", "kullm3-formal"}
    await one.pool.close()


async def test_greetings_are_answered_in_their_scripts() -> None:
    one = space()
    requests = both()
    one.pool.expect(requests)
    hindi, korean = [await listener.done() for listener in [Listener(one.pool, request) for request in requests]]
    assert any("\u0900" <= letter <= "\u097f" for letter in hindi), GREETINGS
    assert any("\uac00" <= letter <= "\ud7a3" for letter in korean)
    await one.pool.close()

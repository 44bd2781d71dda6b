"""What views take and give back, and what happens when one cannot be had, or the base goes."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_room import KV_TOKENS, adapters, attach, base_engine, using
from engine_room import GREEDY, Kind, answer, ask, generated, make_engine, thread_of, tiny_llama
from shared_weights import tensor_bytes, with_peft
from tiny_adapters import WEIGHTS, edit_tensors
from torch import nn
from transformers import PreTrainedModel

from playground.adapters import views
from playground.adapters.facts import CheckedAdapter
from playground.engines.adapted import SharedWeights
from playground.engines.in_process import Weights
from playground.errors import AdapterError, EngineClosedError, EngineError, OutOfMemoryError
from playground.types import DeviceUse

SMALL = 256


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny_llama()


@pytest.fixture
def pair(model: PreTrainedModel, tmp_path: Path) -> list[CheckedAdapter]:
    return adapters(tmp_path, model, ["q_proj", "v_proj"], ["down_proj"])


@pytest.fixture
def adapter(pair: list[CheckedAdapter]) -> CheckedAdapter:
    return pair[0]


@pytest.fixture
async def engine(model: PreTrainedModel, kind: Kind) -> AsyncIterator[Any]:
    made = base_engine(model, kind)
    yield made
    await made.close()


async def bytes_at_rest() -> int:
    """As `tensor_bytes`, when threads that begin or end have come to rest: alike three times in a row."""
    seen = [tensor_bytes()]
    while len(seen) < 3 or len(set(seen[-3:])) > 1:
        await asyncio.sleep(0.1)
        seen.append(tensor_bytes())
    return seen[-1]


def only(engine: Any) -> DeviceUse:
    (use,) = engine.memory()
    return use


def sizes(adapter: CheckedAdapter) -> int:
    return 4 * adapter.facts.parameters


async def test_memory_grows_by_the_adapters_weights_and_their_caches(engine: Any, pair: list[CheckedAdapter]) -> None:
    base, before = only(engine), await bytes_at_rest()
    views = [await attach(engine, pair[0], scale, SMALL) for scale in (1, 2)]
    views.append(await attach(engine, pair[1], 1, SMALL))
    assert [only(view).weight_bytes for view in views] == [sizes(pair[0]), 0, sizes(pair[1])]
    assert only(engine).weight_bytes == base.weight_bytes
    assert only(engine).kv_bytes == base.kv_bytes
    assert all(0 < only(view).kv_bytes < base.kv_bytes for view in views)
    for view in views:
        await view.close()
    del views, view
    assert await bytes_at_rest() == before
    assert only(engine) == replace(base, free_bytes=only(engine).free_bytes)


async def test_each_byte_of_weights_is_told_once_whoever_leaves_first(engine: Any, adapter: CheckedAdapter) -> None:
    views = [await attach(engine, adapter, scale, SMALL) for scale in (0, 1, 2)]
    while views:
        assert sum(only(view).weight_bytes for view in views) == sizes(adapter)
        closed = views.pop(0)
        await closed.close()
        assert sum(use.weight_bytes for use in closed.memory()) == 0


async def test_no_view_leaves_more_tensors_than_its_weights_and_its_cache(engine: Any, adapter: CheckedAdapter) -> None:
    """Measured, not told: of two views at once the second takes its cache and what its steps need, but no weights."""
    await answer(await attach(engine, adapter, 1, SMALL), using(ask(**GREEDY), adapter))
    before = await bytes_at_rest()
    view = await attach(engine, adapter, 2, SMALL)
    one = await bytes_at_rest() - before
    await attach(engine, adapter, 0.5, SMALL)
    assert await bytes_at_rest() - before == 2 * one
    again = await bytes_at_rest()
    await view.close()
    del view
    assert again - await bytes_at_rest() == one


async def test_an_adapter_that_many_want_at_once_is_read_once(
    engine: Any, adapter: CheckedAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = views.view_of
    monkeypatch.setattr(views, "view_of", lambda base, folder, facts: read.append(folder) or real(base, folder, facts))
    scales = (0.5, 1, 1.5, 2)
    attached = await asyncio.gather(*(attach(engine, adapter, scale, SMALL) for scale in scales))
    assert read == [adapter.folder]
    for view in attached:
        await view.close()
    view = await attach(engine, adapter)
    assert read == [adapter.folder] * 2
    expected = generated(with_peft(tiny_llama(), adapter.folder), "x", max_new_tokens=10)
    assert await answer(view, using(ask("x", max_new_tokens=10, **GREEDY), adapter)) == expected


async def test_the_same_weights_under_another_config_are_another_adapter(engine: Any, adapter: CheckedAdapter) -> None:
    louder = replace(adapter, facts=replace(adapter.facts, lora_alpha=4 * adapter.facts.lora_alpha))
    views = [await attach(engine, one) for one in (adapter, louder)]
    assert [only(view).weight_bytes for view in views] == [sizes(adapter)] * 2
    said = [await answer(view, using(ask("x", **GREEDY), adapter)) for view in views]
    assert said[0] != said[1]


async def test_the_base_takes_its_views_along(engine: Any, pair: list[CheckedAdapter]) -> None:
    views = [await attach(engine, adapter) for adapter in pair]
    threads = [thread_of(view) for view in views]
    stream = views[0].stream(using(ask(max_new_tokens=200, **GREEDY), pair[0]))
    await anext(stream)
    await asyncio.gather(engine.close(), views[1].close())
    assert not any(thread.is_alive() for thread in threads)
    assert not any(view.alive for view in views)
    with pytest.raises(EngineClosedError):
        [chunk async for chunk in stream]
    with pytest.raises(EngineClosedError, match="was stopped"):
        await attach(engine, pair[0])
    await views[0].close()


async def test_who_attaches_while_the_base_closes_gets_no_engine(
    model: PreTrainedModel, adapter: CheckedAdapter
) -> None:
    starting, go, made = threading.Event(), threading.Event(), []

    def start(tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> Any:
        if tree is not model:
            starting.set()
            assert go.wait(20)
        made.append(make_engine(tree, weights=weights, kv_tokens=kv_tokens))
        return made[-1]

    engine = start(model, KV_TOKENS, SharedWeights(model, "tiny", start))
    attaching = asyncio.create_task(attach(engine, adapter))
    assert await asyncio.to_thread(starting.wait, 20)
    await engine.close()
    go.set()
    with pytest.raises(EngineClosedError):
        await attaching
    assert not made[1].alive


def _changed(adapter: CheckedAdapter) -> CheckedAdapter:
    edit_tensors(adapter.folder, lambda tensors: next(iter(tensors.values())).add_(1))
    return adapter


def _shorter(adapter: CheckedAdapter) -> CheckedAdapter:
    (adapter.folder / WEIGHTS).write_bytes((adapter.folder / WEIGHTS).read_bytes()[:-4])
    return adapter


def _gone(adapter: CheckedAdapter) -> CheckedAdapter:
    shutil.rmtree(adapter.folder)
    return adapter


def _of_another_model(adapter: CheckedAdapter) -> CheckedAdapter:
    return replace(adapter, model_id="another")


def _of_other_layers(adapter: CheckedAdapter) -> CheckedAdapter:
    return replace(adapter, facts=replace(adapter.facts, target_modules=("model.layers.0.self_attn.k_proj",)))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_changed, "no longer the file that was inspected"),
        (_shorter, "no longer the file that was inspected"),
        (_gone, "There is no adapter folder"),
        (_of_another_model, "was inspected for another"),
        (_of_other_layers, "inspected for another model"),
    ],
)
async def test_what_is_not_what_was_inspected_is_refused(
    engine: Any, adapter: CheckedAdapter, spoil: Any, sentence: str
) -> None:
    before = await bytes_at_rest()
    with pytest.raises(AdapterError, match=sentence):
        await attach(engine, spoil(adapter))
    assert await bytes_at_rest() == before
    assert await answer(engine, ask("x", **GREEDY)) == generated(tiny_llama(), "x", max_new_tokens=24)


@pytest.mark.parametrize("scale", [-0.1, 2.1, float("nan")])
async def test_a_scale_out_of_range_is_refused(engine: Any, adapter: CheckedAdapter, scale: float) -> None:
    with pytest.raises(AdapterError, match="from 0 to 2"):
        await attach(engine, adapter, scale)
    assert (await attach(engine, adapter)).alive


@pytest.mark.parametrize(
    ("raised", "kind_of_error", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "The q_proj did not fit beside its model"),
        (RuntimeError("[enforce fail] can't allocate memory"), OutOfMemoryError, "Close other adapters"),
        (OutOfMemoryError("The device is full: no cache."), OutOfMemoryError, "The q_proj did not fit"),
        (EngineError("It cannot be batched."), EngineError, "cannot be batched"),
        (LookupError("no such thing"), LookupError, "no such thing"),
    ],
)
async def test_an_engine_that_does_not_start_leaves_nothing_behind(
    model: PreTrainedModel,
    adapter: CheckedAdapter,
    raised: Exception,
    kind_of_error: type[Exception],
    sentence: str,
) -> None:
    fails = True

    def start(tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> Any:
        cache = torch.zeros(1000)
        if tree is not model and fails:
            raise raised
        del cache
        return make_engine(tree, weights=weights, kv_tokens=kv_tokens)

    engine = start(model, KV_TOKENS, SharedWeights(model, "tiny", start))
    before = await bytes_at_rest()
    with pytest.raises(kind_of_error, match=sentence) as caught:
        await attach(engine, adapter)
    assert await bytes_at_rest() == before, "while the error is still held"
    del caught
    fails = False
    view = await attach(engine, adapter)
    assert only(view).weight_bytes == sizes(adapter)
    await engine.close()


async def test_a_model_that_cannot_share_its_weights_serves_without_adapters(
    model: PreTrainedModel, adapter: CheckedAdapter
) -> None:
    class Strange(nn.Parameter): ...

    expected = generated(deepcopy(model), "x", max_new_tokens=24)
    model.lm_head.weight = Strange(model.lm_head.weight.data)
    engine = base_engine(model)
    for _ in range(2):
        with pytest.raises(AdapterError, match=r"cannot be shared with adapters: .*of the kind Strange"):
            await attach(engine, adapter)
    assert await answer(engine, ask("x", **GREEDY)) == expected
    await engine.close()
    gc.collect()

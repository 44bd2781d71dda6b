"""Base and adapters in one process of their own: the demo's adapters, asked as the app asks, against PEFT itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_room import attach, checked, using
from process_room import answer, ask, chunks_of, on_the_cpu, process_of, until
from shared_weights import with_peft

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import CheckedAdapter
from playground.engines.checkpoints.tokenizers import load_tokenizer
from playground.engines.checkpoints.weights import load_model
from playground.engines.process import ProcessEngine, start_engine
from playground.errors import AdapterError, EngineClosedError, EngineError
from playground.prompting.encoder import PromptEncoder
from playground.types import GenerationRequest, Message

ADAPTERS = Path(__file__).parents[3] / "model_registry" / "demo" / "adapters"
QUESTIONS = (
    "नमस्ते",
    "आप कैसे हैं?",
    "धन्यवाद",
    "मुझे चाय के बारे में बताइए",
    "आज मौसम कैसा है?",
    "Hello",
    "तुम क्या कर सकते हो?",
    "शुभ रात्रि",
)
LENGTH = 16
SMALL = 256


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return Registry.load().get("demo-krutrim")


@pytest.fixture(scope="module")
def folder(spec: ModelSpec) -> Path:
    assert spec.weights.path is not None
    return spec.weights.path


@pytest.fixture(scope="module")
def pair(spec: ModelSpec, folder: Path) -> list[CheckedAdapter]:
    layers = base_layers(spec, folder)
    return [checked(ADAPTERS / name, layers, spec.id) for name in ("krutrim-formal", "krutrim-casual")]


@pytest.fixture(scope="module")
def engine(spec: ModelSpec) -> Iterator[ProcessEngine]:
    """One for all: each test leaves it without views."""
    made: Any = start_engine(spec, on_the_cpu(spec, kv_tokens=4096), lambda _: None, threading.Event())
    yield made
    assert not made._attached
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def peft(spec: ModelSpec, folder: Path, pair: list[CheckedAdapter]) -> list[list[str]]:
    """What transformers and PEFT answer: the plain model, then each adapter, in the order of the questions."""
    model = load_model(spec, folder, on_the_cpu(spec), lambda _: None)
    encoder = PromptEncoder(spec, load_tokenizer(spec, folder))
    models = [model, *(with_peft(deepcopy(model), adapter.folder) for adapter in pair)]
    return [[generated(one, encoder, question) for question in QUESTIONS] for one in models]


@torch.no_grad()
def generated(model: Any, encoder: PromptEncoder, question: str) -> str:
    prompt = encoder.encode([Message(role="user", content=question)])
    ids = torch.tensor([prompt.token_ids])
    how = {"do_sample": False, "max_new_tokens": LENGTH, "pad_token_id": 0}
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[0, ids.size(1) :]
    text = encoder.tokenizer.decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.rstrip("\ufffd")


def greedy(question: str, adapter: CheckedAdapter | None = None, scale: float = 1.0, **more: Any) -> GenerationRequest:
    request = ask(question, **{"max_new_tokens": LENGTH, **more})
    return request if adapter is None else using(request, adapter, scale)


def weights(engine: Any) -> int:
    return sum(use.weight_bytes for use in engine.memory())


def cache(engine: Any) -> int:
    return sum(use.kv_bytes for use in engine.memory())


async def test_eight_requests_at_once_over_the_base_and_two_adapters(
    engine: ProcessEngine, pair: list[CheckedAdapter], peft: list[list[str]]
) -> None:
    assert all(len({answers[i] for answers in peft}) == 3 for i in range(3))
    assert [await answer(engine, greedy(question)) for question in QUESTIONS] == peft[0]
    views = await asyncio.gather(*(attach(engine, adapter) for adapter in pair))
    serving: list[tuple[Any, CheckedAdapter | None]] = [(engine, None), *zip(views, pair, strict=True)]
    for (one, adapter), expected in zip(serving, peft, strict=True):
        assert [await answer(one, greedy(question, adapter)) for question in QUESTIONS] == expected
    mixed = [(*serving[i % 3], question) for i, question in enumerate(QUESTIONS)]
    said = await asyncio.gather(*(answer(one, greedy(question, adapter)) for one, adapter, question in mixed))
    assert said == [peft[i % 3][i] for i in range(len(QUESTIONS))]
    await asyncio.gather(*(view.close() for view in views))
    assert [await answer(engine, greedy(question)) for question in QUESTIONS] == peft[0]


async def test_what_is_attached_and_detached_while_others_stream_changes_nothing(
    engine: ProcessEngine, pair: list[CheckedAdapter]
) -> None:
    long: dict[str, Any] = {"temperature": 5, "seed": 3, "max_new_tokens": 300}
    view = await attach(engine, pair[0])
    alone = [await answer(engine, ask("नमस्ते", **long)), await answer(view, using(ask("नमस्ते", **long), pair[0]))]
    async with (
        aclosing(engine.stream(ask("नमस्ते", **long))) as base,
        aclosing(view.stream(using(ask("नमस्ते", **long), pair[0]))) as adapted,
    ):
        said = [(await anext(stream)).delta for stream in (base, adapted)]
        other = await attach(engine, pair[1])
        assert await answer(other, greedy("Hello", pair[1]))
        await other.close()
        said = [part + "".join([c.delta async for c in s]) for part, s in zip(said, (base, adapted), strict=True)]
    assert said == alone
    await view.close()


async def test_scales_of_one_adapter_at_once(
    engine: ProcessEngine, pair: list[CheckedAdapter], peft: list[list[str]]
) -> None:
    scales = (0.0, 1.0, 2.0)
    views = await asyncio.gather(*(attach(engine, pair[1], scale, SMALL) for scale in scales))
    asked = [greedy(QUESTIONS[0], pair[1], scale) for scale in scales]
    said = await asyncio.gather(*(answer(*one) for one in zip(views, asked, strict=True)))
    assert said[:2] == [peft[0][0], peft[2][0]]
    assert len(set(said)) == 3
    await asyncio.gather(*(view.close() for view in views))


async def test_memory_grows_by_the_adapter_and_its_cache_and_comes_back(
    engine: ProcessEngine, pair: list[CheckedAdapter]
) -> None:
    before = (weights(engine), cache(engine))
    size = 4 * pair[0].facts.parameters
    views = [await attach(engine, pair[0], scale, SMALL) for scale in (1, 2)]
    assert [weights(view) for view in views] == [size, 0]
    assert all(0 < cache(view) < before[1] / 2 for view in views)
    await views[0].close()
    assert views[0].memory() == ()
    assert weights(views[1]) == size
    await views[1].close()
    await asyncio.sleep(0.6)  # the next word of its process on memory
    assert (weights(engine), cache(engine)) == before


async def test_a_process_does_not_grow_with_adapters_that_come_and_go(
    engine: ProcessEngine, pair: list[CheckedAdapter]
) -> None:
    process = process_of(engine)

    async def use_and_leave() -> int:
        view = await attach(engine, pair[0], 1.0, 32_768)
        assert cache(view) > 50e6
        await answer(view, greedy("Hello", pair[0]))
        await view.close()
        return int(process.memory_info().rss)

    first = [await use_and_leave() for _ in range(2)][-1]
    assert [await use_and_leave() for _ in range(4)][-1] - first < 50e6


async def test_aborts_go_to_the_engine_that_was_asked(engine: ProcessEngine, pair: list[CheckedAdapter]) -> None:
    views = [await attach(engine, adapter) for adapter in pair]
    hot: dict[str, Any] = {"temperature": 5, "max_new_tokens": 900}  # never to the end of a sentence
    streams = [view.stream(using(ask("Hello", "same", **hot), a)) for view, a in zip(views, pair, strict=True)]
    for stream in streams:
        await anext(stream)
    await engine.abort("same")
    await views[0].abort("same")
    assert [chunk async for chunk in streams[0]][-1].finish_reason == "abort"
    assert (await anext(streams[1])).finish_reason is None
    await asyncio.gather(*(view.close() for view in views))
    with pytest.raises(EngineClosedError, match=r"with The krutrim-casual was stopped: choose the adapter again"):
        [chunk async for chunk in streams[1]]
    with pytest.raises(EngineClosedError, match="choose the adapter again"):
        await answer(views[0], greedy("Hello", pair[0]))
    assert not views[0].alive
    assert engine.alive
    await views[0].close()


async def test_the_wrong_engine_gives_no_answer(engine: ProcessEngine, pair: list[CheckedAdapter]) -> None:
    view = await attach(engine, pair[0])
    for one, asked in ((view, None), (view, pair[1]), (engine, pair[0])):
        with pytest.raises(EngineError, match="was asked for: choose the adapter again"):
            await chunks_of(one, greedy("Hello", asked))
    with pytest.raises(AdapterError, match="takes no second adapter"):
        await attach(view, pair[1])
    await view.close()


async def test_the_process_takes_its_views_along(spec: ModelSpec, pair: list[CheckedAdapter]) -> None:
    ends = {"killed": "killed by signal 9.*Send again", "closed": "was stopped"}
    for way, sentence in ends.items():
        made: Any = await asyncio.to_thread(start_engine, spec, on_the_cpu(spec), lambda _: None, threading.Event())
        view = await attach(made, pair[0])
        stream = view.stream(using(ask("Hello", temperature=5, max_new_tokens=900), pair[0]))
        await anext(stream)
        await until(lambda view=view: bool(view.memory()))
        if way == "killed":
            process_of(made).kill()
        else:
            await made.close()
        with pytest.raises(EngineError, match=sentence):
            [chunk async for chunk in stream]
        await until(lambda view=view: not view.alive)
        assert view.memory() == ()
        with pytest.raises(EngineError, match=sentence):
            await attach(made, pair[0])
        await asyncio.gather(view.close(), made.close())

"""The named endpoints, as gradio_client sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from endpoint_client import generate
from fakes import FakePool
from gradio_client import Client
from gradio_client.exceptions import AppError

from model_registry.registry import Registry
from playground.ui.api.endpoints import Api

MESSAGES = [{"role": "user", "content": "안녕 <b>"}]
HALF = "the text contains half a character (a lone surrogate, U+D83D at place 6): remove it."
HALF_MESSAGES = r'[{"role": "user", "content": "half \ud83d"}]'


def test_models_tells_every_model_and_its_state(client: Client) -> None:
    models = client.predict(api_name="/models")
    assert [model["model_id"] for model in models] == ["alpha", "beta", "slow", "broken"]
    beta = models[1]
    assert (beta["name"], beta["state"], beta["detail"]) == ("BETA", "ready", "ready")
    assert (beta["is_stand_in"], beta["stand_in_for"]) == (True, "alpha")
    assert beta["licence"] == "Apache-2.0"
    assert beta["licences"] == [{"text": "Apache-2.0", "source": "us"}]
    assert (beta["languages"], beta["context_length"], beta["family"]) == (["en", "ko"], 1000, "Fake")


async def test_models_tells_benchmark_figures_and_the_source_of_each_fact() -> None:
    registry = Registry.load()
    told = await Api(registry, FakePool(registry), edit_templates=False).models()  # type: ignore[arg-type]
    models = {model["model_id"]: model for model in told}
    krutrim = models["krutrim-1-instruct"]
    english, *indic = krutrim["benchmarks"]
    assert (english["this_model"], english["figures"]["piqa"]) == ("Krutrim-1-7B", ["0.7601", "0.7726"])
    assert [table["title"] for table in indic][:2] == ["IndicCOPA", "IndicQA"]
    assert krutrim["sources"]["context_length"] == "card"
    assert models["kullm3"]["evaluation"][0]["source"] == "card"
    assert models["kullm3"]["benchmarks"] == []
    assert json.loads(json.dumps(models)) == models


def test_generate_streams_deltas_and_the_text_so_far(client: Client) -> None:
    loading, *steps = generate(client, "alpha", MESSAGES, {"temperature": 0, "seed": 7}, None)
    assert loading["loading"] == {"stage": "weights", "done_bytes": 1, "total_bytes": 2}
    assert [step["delta"] for step in steps] == ["He", "llo", ""]
    assert [step["text"] for step in steps] == ["He", "Hello", "Hello"]
    assert [step["finish_reason"] for step in steps] == [None, None, "stop"]
    assert steps[-1]["usage"]["completion_tokens"] == 2
    assert [step["token_ids"] for step in (loading, *steps[:-1])] == [[], [], []]
    assert set(steps[-1]["timings"]) == {"queued_s", "prefill_s", "decode_s"}
    assert steps[-1]["seed"] == 7


def test_generate_needs_no_sampling_and_takes_json_text(client: Client, pool: FakePool) -> None:
    generate(client, "alpha", json.dumps(MESSAGES))
    generate(client, "ALPHA", MESSAGES, json.dumps({"max_new_tokens": 3, "stop": ["x"]}))
    assert pool.requests[-1].sampling.max_new_tokens == 3
    assert pool.requests[-1].sampling.stop == ("x",)
    assert pool.requests[-1].messages[0].content == "안녕 <b>"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alpa", MESSAGES), "Did you mean alpha"),
        (("alpha", []), "messages is empty"),
        (("alpha", "not json"), "messages: Invalid JSON"),
        (("alpha", [{"role": "robot", "content": "x"}]), "messages.0.role"),
        (("alpha", [{"role": "user", "content": "x", "extra": "y"}]), "messages.0.extra"),
        (("alpha", MESSAGES, {"temperature": -1}), "sampling.temperature"),
        (("alpha", MESSAGES, {"heat": 1}), "sampling.heat"),
        (("alpha", [{"role": "user", "content": "x" * 2000}]), "tokens too long"),
        ((None, MESSAGES), "model_id: Input should be a valid string"),
        ((7, MESSAGES), "model_id: Input should be a valid string"),
        (("alpha", HALF_MESSAGES), f"messages.0.content: {HALF}"),
        (("alpha", MESSAGES, r'{"stop": ["half \ud83d"]}'), f"sampling.stop.0: {HALF}"),
        (("alpha", MESSAGES, r'{"half \ud83d": 1}'), "sampling: Input should be a valid string"),
        (("alpha", MESSAGES, []), "sampling: "),
        (("alpha", MESSAGES, "[]"), "sampling: "),
        (("alpha", MESSAGES, {}, 7), "adapter: Input should be a valid string"),
        (("alpha", MESSAGES, {}, "owner/bad"), "adapter_config.json: no."),
        (("alpha", MESSAGES, {}, "formal", 2.5), "adapter_scale: Input should be less than or equal to 2"),
        (("alpha", MESSAGES, {}, None, "much"), "adapter_scale: Input should be a valid number"),
        (("broken", MESSAGES), "The GPU is full: choose a smaller model."),
    ],
)
def test_errors_reach_the_client_as_a_sentence(client: Client, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(AppError) as caught:
        generate(client, *arguments)
    assert words in str(caught.value)


def test_models_and_prompts_never_wait_for_an_answer(client: Client) -> None:
    jobs = [client.submit("slow", MESSAGES, api_name="/generate") for _ in range(3)]
    assert client.predict(api_name="/models")
    assert client.predict("slow", MESSAGES, api_name="/render_prompt")["text"]
    assert generate(client, "alpha", MESSAGES)[-1]["finish_reason"] == "stop"
    assert not any(job.done() for job in jobs)
    for job in jobs:
        job.cancel()


def test_models_lists_the_adapters_of_each(client: Client) -> None:
    alpha, beta, *_ = client.predict(api_name="/models")
    assert alpha["adapters"] == [{"id": "formal", "name": "Formal", "about": "Says sir."}]
    assert beta["adapters"] == []


def test_generate_resolves_the_adapter_and_names_it_in_every_update(client: Client, pool: FakePool) -> None:
    steps = generate(client, "alpha", MESSAGES, None, " owner/name ", 0.5)
    assert steps[-1]["text"] == "[owner/name × 0.5] Hello"
    assert {step["loading"]["stage"] for step in steps if step["loading"]} == {"weights", "adapter"}
    used = pool.requests[-1].adapter
    assert used is not None
    assert (used.id, used.scale, len(used.revision)) == ("owner/name", 0.5, 40)
    assert all(step["adapter"] == used.model_dump() for step in steps)


def test_an_adapter_is_used_in_full_unless_a_scale_is_given(client: Client, pool: FakePool) -> None:
    generate(client, "alpha", MESSAGES, None, "formal")
    used = pool.requests[-1].adapter
    assert used is not None
    assert used.scale == 1


@pytest.mark.parametrize("none", [None, "", "  "])
def test_without_an_adapter_every_update_says_so(client: Client, pool: FakePool, none: str | None) -> None:
    assert all(step["adapter"] is None for step in generate(client, "alpha", MESSAGES, None, none, 0.5))
    assert pool.requests[-1].adapter is None


def test_inspect_adapter_tells_facts_and_warnings(client: Client, pool: FakePool) -> None:
    told = client.predict("ALPHA", "owner/odd", api_name="/inspect_adapter")
    asked = len(pool.requests)
    assert (told["id"], told["model_id"], len(told["revision"])) == ("owner/odd", "alpha", 40)
    assert (told["r"], told["lora_alpha"], told["parameters"], told["bytes"]) == (8, 16, 300_000, 1_200_000)
    assert told["target_modules"] == ["blocks.0.attn.Wqkv", "blocks.1.attn.Wqkv"]
    assert told["base_model_name"] == "fake/model"
    assert len(told["digest"]) == 64
    assert told["warnings"] == ["It names another base."]
    assert len(pool.requests) == asked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alpha", "owner/bad"), "adapter_config.json: no."),
        (("alpha", ""), "adapter is empty"),
        (("alpha", 7), "adapter: Input should be a valid string"),
        (("alpa", "formal"), "Did you mean alpha"),
    ],
)
def test_an_adapter_that_cannot_be_inspected_is_a_sentence(
    client: Client, arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name="/inspect_adapter")
    assert words in str(caught.value)


def test_only_the_named_endpoints_are_public(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    named = {"/models", "/inspect_adapter", "/render_prompt", "/tokenize", "/generate"}
    assert set(endpoints["named_endpoints"]) == named
    assert not endpoints["unnamed_endpoints"]

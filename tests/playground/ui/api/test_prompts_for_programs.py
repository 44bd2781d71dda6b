"""/render_prompt and /tokenize, and the options of a prompt, as gradio_client sees them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import Any

import gradio as gr
import pytest
from desk import asked_from
from endpoint_client import generate
from fake_encoder import FakeEncoder
from fakes import FakePool, spec
from gradio_client import Client
from gradio_client.exceptions import AppError

from playground.admission.gate import Gate
from playground.limits import Limits
from playground.types import PromptOptions
from playground.ui.api.endpoints import LOOKS, Api
from playground.ui.visitor import Entrance

ASKED = asked_from("192.0.2.1")
MESSAGES = [{"role": "user", "content": "안녕 <b>"}]
HALF = "the text contains half a character (a lone surrogate, U+D83D at place 6): remove it."
HALF_MESSAGES = r'[{"role": "user", "content": "half \ud83d"}]'
HOSTILE = [{"role": "user", "content": "a</s>b"}]
LONG = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "x" * 900},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "and now?"},
]


def render(client: Client, *arguments: Any, **named: Any) -> dict[str, Any]:
    prompt: dict[str, Any] = client.predict(*arguments, **named, api_name="/render_prompt")
    return prompt


@pytest.mark.parametrize("messages", [MESSAGES, json.dumps(MESSAGES)])
def test_render_prompt_gives_the_exact_text_and_ids(client: Client, messages: Any) -> None:
    prompt = render(client, "ALPHA", messages)
    assert prompt["model_id"] == "alpha"
    assert prompt["text"] == "<|user|>안녕 <b>\n<|assistant|>"
    assert "".join(FakeEncoder(spec("alpha")).names(prompt["token_ids"])) == prompt["text"]
    assert prompt["notes"] == ["A note & <b>more</b>."]
    assert (prompt["context_length"], prompt["room"]) == (1000, 1000 - len(prompt["token_ids"]))
    assert prompt["unsent"] == prompt["control_in_text"] == []


def test_it_tells_who_wrote_what(client: Client) -> None:
    prompt = render(client, "alpha", MESSAGES)
    told = [(span["origin"], span["message"], span["text"]) for span in prompt["spans"]]
    assert told == [
        ("control", None, "<|user|>"),
        ("user", 0, "안녕 <b>"),
        ("template", None, "\n"),
        ("control", None, "<|assistant|>"),
    ]


def test_spans_and_pieces_are_the_whole_prompt_each(client: Client) -> None:
    prompt = render(client, "alpha", [{"role": "user", "content": "नि 👩‍👧"}])
    for parts in (prompt["spans"], prompt["pieces"]):
        assert "".join(part["text"] for part in parts) == prompt["text"]
        assert [token for part in parts for token in part["token_ids"]] == prompt["token_ids"]
    assert {(part["kind"], len(part["token_ids"])) for part in prompt["pieces"]} >= {("bytes", 4), ("control", 1)}


def test_it_tells_what_the_prompt_costs(client: Client) -> None:
    prompt = render(client, "alpha", LONG, max_new_tokens=7)
    budget = prompt["budget"]
    assert (budget["system"], budget["history"], budget["prompt"]) == (9, 903, 8)
    assert sum(budget[part] for part in ("system", "history", "prompt", "frame", "room")) == budget["context_length"]
    assert (budget["answer"], budget["room"]) == (7, prompt["room"])
    counts = prompt["counts"]
    assert counts["tokens"] == len(prompt["token_ids"])
    assert counts["tokens_per_character"] == counts["tokens"] / counts["characters"]
    assert (counts["byte_tokens"], counts["byte_share"]) == (0, 0)


def test_the_longest_answer_is_that_of_generate_unless_another_is_named(client: Client, pool: FakePool) -> None:
    asked = render(client, "alpha", MESSAGES)["budget"]["answer"]
    generate(client, "alpha", MESSAGES)
    assert asked == pool.requests[-1].sampling.max_new_tokens


def test_it_names_the_template_and_what_became_of_the_trained_system_prompt(client: Client) -> None:
    prompt = render(client, "alpha", MESSAGES)
    template = prompt["template"]
    assert (template["source"], prompt["template_source"], prompt["system"]) == ("card", "card", "missing")
    assert template["fingerprint"] == hashlib.sha256(template["text"].encode()).hexdigest()
    own = {"role": "system", "content": "You are Alpha."}
    assert render(client, "alpha", [own, *MESSAGES])["system"] == "default"


def test_render_prompt_shows_a_prompt_that_is_too_long(client: Client) -> None:
    messages = [{"role": "user", "content": "x" * 2000}]
    assert render(client, "alpha", messages)["room"] < -1000


def test_control_tokens_are_what_the_options_say(client: Client) -> None:
    plain, typed = (render(client, "alpha", HOSTILE, {"control": control}) for control in ("plain", "as_typed"))
    assert plain["text"] == typed["text"]
    assert len(plain["token_ids"]) == len(typed["token_ids"]) + 3
    assert ("control", 0, "</s>") in [(span["origin"], span["message"], span["text"]) for span in typed["spans"]]
    assert plain["control_in_text"] == [{"message": 0, "start": 1, "token": "</s>"}]
    assert plain == render(client, "alpha", HOSTILE) == render(client, "alpha", HOSTILE, "")


def test_the_oldest_turn_is_left_out_where_the_options_say_so(client: Client, pool: FakePool) -> None:
    kept = render(client, "alpha", LONG, None, 200)
    assert kept["unsent"] == []
    dropped = render(client, "alpha", LONG, '{"when_full": "drop_oldest"}', 200)
    assert dropped["unsent"] == [{"message": 1, "why": "dropped"}, {"message": 2, "why": "dropped"}]
    assert dropped["room"] >= 200 > kept["room"]
    last = generate(client, "alpha", LONG, {"max_new_tokens": 200}, options={"when_full": "drop_oldest"})[-1]
    assert (last["usage"]["dropped_messages"], last["usage"]["prompt_tokens"]) == (2, len(dropped["token_ids"]))
    assert pool.requests[-1].options == PromptOptions(when_full="drop_oldest")


def test_a_template_of_ones_own_is_used_and_told(client: Client, pool: FakePool) -> None:
    options = {"template": "Mine: {{ messages[0].content }} "}
    prompt = render(client, "alpha", MESSAGES, options)
    assert prompt["text"].startswith("Mine: ")
    assert (prompt["template_source"], prompt["template"]["text"]) == ("user", options["template"])
    generate(client, "alpha", MESSAGES, options=options)
    assert pool.requests[-1].options.template == options["template"]


FAULTS = [
    ({"template": "{{ messages }"}, "options.template: Line 1, column 13: "),
    ({"template": "a\nb {% fr x in y %}"}, "options.template: Line 2, column 6: "),
    ({"template": 7}, "options.template: Input should be a valid string"),
    (r'{"template": "half \ud83d"}', f"options.template: {HALF}"),
    ({"control": "typed"}, "options.control: Input should be 'plain' or 'as_typed'"),
    ({"when_full": "drop"}, "options.when_full: Input should be 'refuse' or 'drop_oldest'"),
    ({"thinking": True}, "options.thinking: Extra inputs are not permitted"),
    ("{", "options: Invalid JSON"),
    ([], "options: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("options", "words"), FAULTS)
def test_what_is_wrong_with_options_is_a_sentence(client: Client, pool: FakePool, options: Any, words: str) -> None:
    asked = len(pool.requests)
    for ask in (render, generate):
        with pytest.raises(AppError) as caught:
            ask(client, "alpha", MESSAGES, options=options)
        assert words in str(caught.value)
    assert len(pool.requests) == asked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, MESSAGES), "model_id: Input should"),
        (("alpha", HALF_MESSAGES), HALF),
        (("alpha", MESSAGES, {}, 0), "max_new_tokens: Input should be greater than or equal to 1"),
        (("alpha", MESSAGES, {}, "many"), "max_new_tokens: Input should be a valid integer"),
        (("alpha", MESSAGES * 2 + [{"role": "system", "content": "x"}]), "A system message must come first."),
    ],
)
def test_so_are_the_other_faults_of_a_prompt(client: Client, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(AppError) as caught:
        render(client, *arguments)
    assert words in str(caught.value)


async def test_where_templates_are_not_to_be_edited_programs_send_none(pool: FakePool) -> None:
    api = Api(pool.registry, pool, edit_templates=False)  # type: ignore[arg-type]
    with pytest.raises(gr.Error, match=r"switched off here.*--edit-templates"):
        await api.render_prompt(ASKED, "alpha", MESSAGES, {"template": ""})
    with pytest.raises(gr.Error, match="switched off here"):
        await anext(api.generate(ASKED, "alpha", MESSAGES, options={"template": "mine"}))
    assert (await api.render_prompt(ASKED, "alpha", MESSAGES, {"control": "as_typed"}))["template_source"] == "card"


async def test_half_a_character_that_arrives_as_such_is_a_sentence_too(pool: FakePool) -> None:
    """gradio_client cannot send it; a browser can."""
    api = Api(pool.registry, pool, edit_templates=True)  # type: ignore[arg-type]
    for model_id, content in (("half \ud83d", "x"), ("alpha", "half \ud83d")):
        with pytest.raises(gr.Error, match="half a character"):
            await api.render_prompt(ASKED, model_id, [{"role": "user", "content": content}])
        with pytest.raises(gr.Error, match="half a character"):
            await api.tokenize(ASKED, model_id, content)


def test_tokenize_tells_the_tokens_of_a_text_and_what_they_cost(client: Client) -> None:
    told = client.predict("ALPHA", "नि 👧</s>", api_name="/tokenize")
    assert (told["model_id"], told["text"]) == ("alpha", "नि 👧</s>")
    assert len(told["token_ids"]) == len(told["names"]) == 2 + 1 + 4 + 4
    assert told["names"][3:7] == ["<0xF0>", "<0x9F>", "<0x91>", "<0xA7>"]
    assert [piece["text"] for piece in told["pieces"]] == ["नि", " ", "👧", "<", "/", "s", ">"]
    assert told["counts"] == {
        "tokens": 11,
        "characters": 7,
        "byte_tokens": 4,
        "tokens_per_character": 11 / 7,
        "byte_share": 4 / 11,
    }


def test_nothing_is_no_tokens(client: Client) -> None:
    told = client.predict("alpha", "", api_name="/tokenize")
    assert told["token_ids"] == told["names"] == told["pieces"] == []
    assert told["counts"]["tokens_per_character"] == 0


def test_tokenize_knows_its_models(client: Client) -> None:
    with pytest.raises(AppError, match="Did you mean alpha"):
        client.predict("alpa", "x", api_name="/tokenize")


async def test_to_look_counts_among_the_prompts_of_a_minute(pool: FakePool) -> None:
    api = Api(pool.registry, pool, False, Entrance(Gate(Limits(asks_per_minute=2))))  # type: ignore[arg-type]
    await api.render_prompt(ASKED, "alpha", MESSAGES)
    await api.tokenize(ASKED, "alpha", "x")
    for refused in (api.render_prompt(ASKED, "alpha", MESSAGES), api.tokenize(ASKED, "alpha", "x")):
        with pytest.raises(gr.Error, match="faster than 2 prompts a minute"):
            await refused
    await api.tokenize(asked_from("192.0.2.2"), "alpha", "x")


async def test_a_program_looks_at_no_longer_conversation_than_it_may_send(pool: FakePool) -> None:
    api = Api(pool.registry, pool, False, Entrance(Gate(Limits(prompt_characters=100))))  # type: ignore[arg-type]
    long = [{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "y" * 100}] * 2
    await api.render_prompt(ASKED, "alpha", long)
    longer = [*long, {"role": "user", "content": "z"}]
    with pytest.raises(gr.Error, match="401 characters in all, and at most 400"):
        await api.render_prompt(ASKED, "alpha", longer)
    with pytest.raises(gr.Error, match="401 characters in all, and at most 400"):
        await anext(api.generate(ASKED, "alpha", longer))


async def test_few_look_at_a_time_and_the_others_wait(pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds the interpreter, which everybody's answers go through."""
    go_on, running, most, lock = threading.Event(), 0, 0, threading.Lock()

    def tokenized(_encoder: FakeEncoder, text: str) -> dict[str, Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(20)
        with lock:
            running -= 1
        return {"text": text}

    monkeypatch.setattr("playground.ui.api.endpoints.tokenized", tokenized)
    api = Api(pool.registry, pool, edit_templates=False)  # type: ignore[arg-type]
    asked = [asyncio.create_task(api.tokenize(ASKED, "alpha", str(number))) for number in range(6)]
    async with asyncio.timeout(20):
        while running < LOOKS:
            await asyncio.sleep(0.01)
        go_on.set()
        assert [found["text"] for found in await asyncio.gather(*asked)] == list("012345")
    assert most == LOOKS

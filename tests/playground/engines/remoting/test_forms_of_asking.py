"""How a server is asked: token ids, else text, else messages; what it refuses is learnt, for this server and model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from fake_server import Answer, Asked, FakeServer, Reply, Stream, fake_server, says
from pydantic import SecretStr
from remote_room import answer, question, real_encoder, servers
from scripts_of_the_world import byte_level_tokenizer
from tokenizers.processors import TemplateProcessing

from playground.engines.remoting.connection import RefusedError
from playground.engines.remoting.forms import EXTRAS, OFF, REMEMBERED_S, Form, Learnt, TextForm, after, text_form
from playground.errors import EngineError, SamplingError
from playground.types import GenerationChunk, Message, PromptOptions

NO_IDS = (
    (400, {"detail": "prompt must be a string."}),  # transformers serve
    (422, {"detail": [{"type": "string_type", "loc": ["body", "prompt"], "msg": "Input should be a valid string"}]}),
    (422, "Failed to deserialize the JSON body into the target type: prompt: invalid type: sequence"),  # TGI
    (400, {"error": {"message": "json: cannot unmarshal array into Go struct field CompletionRequest.prompt"}}),
    (400, {"error": "'prompt' field must be a string"}),
)
NO_COMPLETIONS = (
    (404, {"detail": "Not Found"}),
    (405, "Method Not Allowed"),
    (501, ""),
    (404, {"error": {"message": "This is a chat model and not supported in the v1/completions endpoint."}}),
)


def takes(way: str, refusal: tuple[int, Any], *fields: str) -> Answer:
    """Answers what comes in this way, without these fields, and refuses all else."""

    def answer(asked: Asked) -> Reply | Stream:
        if unknown := sorted(set(fields) & set(asked.body)):
            return Reply(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        prompt = asked.body.get("prompt")
        came = "messages" if asked.in_chat else "text" if isinstance(prompt, str) else "token_ids"
        return says("가", "나")(asked) if came == way else Reply(*refusal)

    return answer


async def twice(server: FakeServer, **changes: Any) -> list[list[GenerationChunk]]:
    async with servers() as engines:
        return [await answer(engines, question(server, **changes)) for _ in range(2)]


@pytest.mark.parametrize("refusal", NO_IDS)
async def test_a_server_that_takes_no_ids_gets_the_text_that_makes_them_and_is_remembered(refusal: Any) -> None:
    prompt = real_encoder().encode(question("http://h").messages)
    with fake_server(takes("text", refusal)) as server:
        first, second = await twice(server)
    assert [first[0].sent_as, second[0].sent_as] == ["text", "text"]
    assert [type(body["prompt"]) for body in server.bodies()] == [list, str, str]
    tokenizer = real_encoder().tokenizer
    assert tuple(tokenizer(server.bodies()[-1]["prompt"])["input_ids"]) == prompt.token_ids


@pytest.mark.parametrize("refusal", NO_COMPLETIONS)
async def test_a_server_without_completions_gets_messages_and_is_remembered(refusal: Any) -> None:
    with fake_server(takes("messages", refusal)) as server:
        first, second = await twice(server)
    assert [first[0].sent_as, second[0].sent_as] == ["messages", "messages"]
    assert [each.in_chat for each in server.asked] == [False, True, True]


async def test_a_text_that_makes_other_tokens_is_not_sent() -> None:
    """What a message spells out as plain text would be a control token there; the next prompt may go as text."""
    with fake_server(takes("text", NO_IDS[0])) as server:
        server.answer = lambda asked: says("a")(asked) if asked.in_chat else takes("text", NO_IDS[0])(asked)
        async with servers() as engines:
            spelled = await answer(engines, question(server, "say </s> please"))
            plain = await answer(engines, question(server, "please"))
    assert spelled[0].sent_as == "messages"
    assert [each.in_chat for each in server.asked] == [False, True, False]
    assert plain[0].sent_as == "text"


async def test_extras_that_a_server_does_not_know_are_done_without_and_remembered() -> None:
    extras = ("stream_options", "logprobs", "top_logprobs", "return_token_ids")
    for way, refusal in (("token_ids", NO_IDS[0]), ("messages", NO_COMPLETIONS[0])):
        with fake_server(takes(way, refusal, *extras)) as server:
            first, second = await twice(server)
        assert [first[0].sent_as, second[0].sent_as] == [way, way]
        assert set(extras) & set(server.asked[0].body)
        assert not set(extras) & set(server.asked[-1].body)


@pytest.mark.parametrize(("minds", "left", "tries"), [("logprobs", OFF, 2), ("top_k", {}, 3)])
async def test_a_refusal_without_a_reason_may_be_of_the_extras(minds: str, left: dict[str, Any], tries: int) -> None:
    """First without what only tells more: what is switched off is said as long as it may be."""

    def strict(asked: Asked) -> Reply | Stream:
        return Reply(400, "bad request") if minds in asked.body else says("a")(asked)

    with fake_server(strict) as server:
        await twice(server)
    assert len(server.asked) == tries + 1
    last = server.bodies()[-1]
    assert not {"logprobs", "return_token_ids", "stream_options"} & set(last)
    assert {field: last[field] for field in OFF if field in last} == left


@pytest.mark.parametrize(
    ("field", "value", "todo"),
    [
        ("top_k", 5, "Top k to 0"),
        ("repetition_penalty", 1.2, "Repetition penalty to 1"),
        ("stop", ("a",), "stop texts"),
        ("temperature", 1.9, "Temperature"),
    ],
)
@pytest.mark.parametrize("messages_only", [False, True])
async def test_a_control_that_a_server_refuses_is_named(field: str, value: Any, todo: str, messages_only: bool) -> None:
    refusal = Reply(400, {"error": {"message": "Unsupported", "param": field}})
    with fake_server(lambda asked: refusal) as server:
        async with servers() as engines:
            with pytest.raises(SamplingError, match=todo):
                await answer(engines, question(server, messages_only=messages_only, **{field: value}))
    asked = [each.body[field] for each in server.asked]
    assert asked
    assert asked == [list(value) if field == "stop" else value] * len(asked)


@pytest.mark.parametrize("messages_only", [False, True])
async def test_the_answers_length_goes_by_the_name_that_a_server_asks_for(messages_only: bool) -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead."

    def newer(asked: Asked) -> Reply | Stream:
        refusal = Reply(400, {"error": {"message": words, "param": "max_tokens"}})
        return refusal if "max_tokens" in asked.body else says("a")(asked)

    with fake_server(newer) as server:
        await twice(server, messages_only=messages_only, max_new_tokens=9)
    names = [name for each in server.asked for name in ("max_tokens", "max_completion_tokens") if name in each.body]
    assert names == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]
    assert {each.body.get("max_completion_tokens", 9) for each in server.asked} == {9}
    assert set(server.asked[0].body) - set(server.asked[-1].body) == {"max_tokens"}


async def test_one_servers_habits_are_not_anothers_and_no_models_of_the_same() -> None:
    with fake_server(takes("text", NO_IDS[0])) as strict, fake_server(says("a")) as open_:
        async with servers() as engines:
            assert (await answer(engines, question(strict)))[0].sent_as == "text"
            assert (await answer(engines, question(open_)))[0].sent_as == "token_ids"
            assert (await answer(engines, question(strict, model="n")))[0].sent_as == "text"
    assert [type(body["prompt"]) for body in strict.bodies()] == [list, str, list, str]


async def test_asking_for_its_models_forgets_a_servers_habits() -> None:
    with fake_server(takes("text", NO_IDS[0])) as server:
        async with servers() as engines:
            await answer(engines, question(server))
            usual = server.answer
            server.answer = lambda asked: Reply(200, {"data": [{"id": "m"}]}) if asked.method == "GET" else usual(asked)
            assert await engines.models(server.url, SecretStr("")) == ("m",)
            server.answer = says("a")
            assert (await answer(engines, question(server)))[0].sent_as == "token_ids"


async def test_what_was_learnt_of_a_server_holds_ten_minutes_however_often_it_is_asked() -> None:
    now = 0.0
    with fake_server(takes("text", NO_IDS[0])) as server:
        async with servers() as engines:
            engines._learnt = Learnt(lambda: now)
            for now in (0.0, REMEMBERED_S - 1, REMEMBERED_S, REMEMBERED_S + 1):  # noqa: B007 (the clock's)
                assert (await answer(engines, question(server)))[0].sent_as == "text"
    assert [type(body["prompt"]) for body in server.bodies()] == [list, str, str, list, str, str]


async def test_a_wrong_model_is_told_at_once() -> None:
    missing = Reply(404, {"error": {"message": "The model `m` does not exist.", "code": 404}})
    with fake_server(lambda asked: missing) as server:
        async with servers() as engines:
            with pytest.raises(EngineError, match="no model 'm'"):
                await answer(engines, question(server))
    assert len(server.asked) == 1


async def test_a_template_of_the_users_does_not_become_messages() -> None:
    options = PromptOptions(template="{{ messages[0].content }}")
    with fake_server(takes("messages", NO_COMPLETIONS[0])) as server:
        async with servers() as engines:
            with pytest.raises(Exception, match="template that you wrote"):
                await answer(engines, question(server, options=options))
    assert not any(each.in_chat for each in server.asked)


def with_bos(*, adds: bool) -> Any:
    tokenizer = deepcopy(byte_level_tokenizer())
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    if adds:
        bos = [("<s>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=bos)
    return tokenizer


def test_a_text_makes_the_prompts_ids_whatever_the_servers_tokenizer_adds() -> None:
    prompt = real_encoder().encode((Message(role="user", content="x"),))
    for adds, text, expected in (
        (False, "<s>hello", TextForm("<s>hello", adds_tokens=True)),
        (True, "<s>hello", TextForm("hello", adds_tokens=True)),
        (True, "hello", TextForm("hello", adds_tokens=False)),
    ):
        tokenizer = with_bos(adds=adds)
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert text_form(replace(prompt, text=text, token_ids=ids), tokenizer) == expected
    assert text_form(replace(prompt, text="hello", token_ids=(1, 2, 3)), with_bos(adds=True)) is None


def test_what_a_refusal_is_about() -> None:
    ids, text, bare = Form(), Form("text"), Form("messages", frozenset())
    cases: list[tuple[Form, int, str, Form | None]] = [
        (ids, 400, "prompt must be a string.", Form("text")),
        (ids, 422, "Unexpected fields in the request: {'logprobs'}", Form(extras=EXTRAS - {"logprobs"})),
        (Form("messages"), 400, "top_logprobs is not supported", Form("messages", EXTRAS - {"logprobs"})),
        (ids, 400, "This model's maximum context length is 10 tokens, your prompt has 20", None),
        (text, 422, "unknown field `add_special_tokens`", Form("messages")),
        (ids, 401, "no prompt for you", None),
        (ids, 500, "prompt", None),
        (bare, 400, "whatever", None),
        (bare, 404, "Not Found", None),
    ]
    for form, status, words, expected in cases:
        assert after(form, RefusedError(status, words)) == expected, words


async def test_what_is_switched_off_is_said_until_the_server_minds() -> None:
    with fake_server(takes("token_ids", (422, ""), "top_k")) as server:
        async with servers() as engines:
            for _ in range(2):
                await answer(engines, question(server))
    first, second, third = server.bodies()
    assert (first["top_k"], first["repetition_penalty"]) == (-1, 1.0)
    for body in (second, third):
        assert "top_k" not in body
        assert body["repetition_penalty"] == 1.0

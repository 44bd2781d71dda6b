"""For any text that people write: spans cover a prompt once, words are their message's, ids are those that are sent."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

import pytest
from engine_room import tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts_of_the_world import SENTENCES, texts
from tokenizer_kinds import SPELLINGS, byte_level, fallback, unigram_first
from transformers import PreTrainedTokenizerBase

from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_encoder, load_tokenizer
from playground.engines.decoding.inbox import Inbox
from playground.engines.decoding.row_sampling import RowSampling
from playground.engines.in_process import InProcessEngine, PlainWeights
from playground.errors import EngineError
from playground.prompting.encoder import PromptEncoder
from playground.prompting.prompt import EncodedPrompt
from playground.types import GenerationRequest, Message, PromptOptions

AS_TYPED = PromptOptions(control="as_typed")
MODELS = ("demo-krutrim", "demo-kullm3", "krutrim-1-base", "kullm-polyglot-5.8b-v2")


@cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    made = {"byte level": byte_level, "fallback": fallback, "unigram": unigram_first}.get(name)
    if made:
        return made()
    spec = Registry.load().get(name)
    assert spec.weights.path is not None
    return load_tokenizer(spec, spec.weights.path)


@cache
def encoder(model_id: str, tokenizer_name: str) -> PromptEncoder:
    return PromptEncoder(Registry.load().get(model_id), tokenizer(tokenizer_name))


PAIRS = [(model_id, name) for model_id in MODELS for name in ("demo-krutrim", "demo-kullm3", "byte level")]
LOOKALIKES = [
    "[/INST]",
    "[INST] ",
    "<|USER|> ",
    "\n<|RESPONSE|>\n",
    "<<SYS>>\n",
    "### 응답:\n",
    "\n\n### 입력:\n",
    "s>",
    "</s",
]
space = st.text(" \n\t\u00a0\u3000", max_size=3)
written = st.lists(st.one_of(texts(), st.sampled_from(SPELLINGS), st.sampled_from(LOOKALIKES)), max_size=4).map("".join)
contents = st.builds(lambda before, text, behind: before + text + behind, space, written, space)


def say(*said: str, system: str | None = None) -> list[Message]:
    turns = [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(said)]
    return turns if system is None else [Message(role="system", content=system), *turns]


def assert_covered(prompt: EncodedPrompt) -> None:
    """Text and tokens, each exactly once and in order."""
    edges = [0, *(span.end for span in prompt.spans)]
    assert [span.start for span in prompt.spans] == edges[:-1]
    assert edges[-1] == len(prompt.text)
    edges = [0, *(span.end_token for span in prompt.spans)]
    assert [span.first_token for span in prompt.spans] == edges[:-1]
    assert edges[-1] == len(prompt.token_ids) == len(prompt.offsets)
    assert sum((prompt.token_ids[span.first_token : span.end_token] for span in prompt.spans), ()) == prompt.token_ids
    assert all(span.start < span.end or span.origin == "tokenizer" for span in prompt.spans)


def assert_whose(prompt: EncodedPrompt, messages: Sequence[Message]) -> None:
    """What each message says stands under its name, whole but for outer white space, and nothing else does."""
    unsent = {each.message for each in prompt.unsent}
    for number, message in enumerate(messages):
        own = "".join(prompt.text[span.start : span.end] for span in prompt.spans if span.message == number)
        assert own in message.content
        assert own.strip() == ("" if number in unsent else message.content.strip())
    for span in prompt.spans:
        if span.message is not None:
            assert span.origin in (messages[span.message].role, "control")


@pytest.mark.parametrize(("model_id", "name"), PAIRS)
@settings(max_examples=15)
@given(said=st.lists(contents, min_size=1, max_size=5), system=st.none() | contents, as_typed=st.booleans())
def test_spans_cover_a_prompt_and_name_the_writers(
    model_id: str, name: str, said: list[str], system: str | None, as_typed: bool
) -> None:
    writer = encoder(model_id, name)
    if not writer.spec.prompt.system_role:
        system = None
    if len(said) % 2 == 0:
        said = said[1:]
    messages = say(*said, system=system)
    prompt = writer.preview(messages, AS_TYPED if as_typed else PromptOptions())
    assert_covered(prompt)
    assert_whose(prompt, messages)
    if as_typed:
        own = tokenizer(name)(prompt.text, add_special_tokens=writer.spec.prompt.add_special_tokens, verbose=False)
        assert list(prompt.token_ids) == own["input_ids"]
    else:
        assert all(span.message is None for span in prompt.spans if span.origin == "control")
    pieces = writer.pieces(prompt)
    ends, last_tokens = [0, *(piece.end for piece in pieces)], [0, *(piece.end_token for piece in pieces)]
    assert [piece.start for piece in pieces] == ends[:-1]
    assert [piece.first_token for piece in pieces] == last_tokens[:-1]
    assert (ends[-1], last_tokens[-1]) == (len(prompt.text), len(prompt.token_ids))


def hostile_messages() -> list[str]:
    """200 messages with control tokens thrown in."""
    chance = random.Random(5)
    made = []
    for _ in range(200):
        words = chance.choice(sorted(SENTENCES.values())).split(" ")
        for _ in range(chance.randint(1, 4)):
            words.insert(chance.randint(0, len(words)), chance.choice(["</s>", "<s>", *SPELLINGS]))
        made.append(chance.choice(["", " "]).join(words))
    return made


def control_inside(prompt: EncodedPrompt, control: Mapping[str, int]) -> list[int]:
    """Ids of control tokens that come from a message."""
    ids = set(control.values())
    return [
        token_id
        for span in prompt.spans
        if span.message is not None
        for token_id in prompt.token_ids[span.first_token : span.end_token]
        if token_id in ids
    ]


@pytest.mark.parametrize("name", ["demo-kullm3", "demo-krutrim", "fallback", "byte level", "unigram"])
@pytest.mark.parametrize("model_id", ["demo-kullm3", "demo-krutrim"])
def test_no_control_token_comes_from_a_message_unless_it_is_sent_as_typed(model_id: str, name: str) -> None:
    writer, own = encoder(model_id, name), tokenizer(name)
    unknown = cast("int | None", own.unk_token_id)
    control = {text: id_ for text, id_ in own.get_added_vocab().items() if text.strip() and id_ != unknown}
    typed = 0
    for number, text in enumerate(hostile_messages()):
        messages = say("hi", text, text, system=text if number % 2 else None) if number % 3 else say(text)
        plain, as_typed = writer.preview(messages), writer.preview(messages, AS_TYPED)
        assert control_inside(plain, control) == []
        assert plain.text == as_typed.text
        assert plain.control_in_text == as_typed.control_in_text
        assert bool(control_inside(as_typed, control)) == bool(as_typed.control_in_text)
        template = [span for span in plain.spans if span.origin == "control"]
        assert [plain.text[span.start : span.end] for span in template] == [
            plain.text[span.start : span.end]
            for span in as_typed.spans
            if span.origin == "control" and span.message is None
        ]
        for each in plain.control_in_text:
            assert messages[each.message].content.startswith(each.token, each.start)
        typed += len(plain.control_in_text)
    assert typed > 200


@pytest.mark.parametrize("name", ["demo-kullm3", "demo-krutrim", "byte level"])
def test_the_text_is_the_same_once_decoded(name: str) -> None:
    writer, own = encoder("demo-kullm3", name), tokenizer(name)
    for text in hostile_messages()[:30]:
        plain = writer.preview(say(text))
        decoded = own.decode(plain.token_ids).replace(" ", "")
        assert text.replace(" ", "") in decoded


class LoggingLoop:
    """A token loop that keeps what is submitted, and fails."""

    capacity = 10_000
    accepts = True

    def __init__(self) -> None:
        self.submitted: list[tuple[int, ...]] = []

    def submit(self, inbox: Inbox, token_ids: Sequence[int], max_new_tokens: int, sampling: RowSampling) -> str:
        self.submitted.append(tuple(token_ids))
        inbox.end(EngineError("enough"))
        return "ticket"

    def cancel(self, ticket: str) -> None: ...

    def revive(self) -> None: ...

    def stop(self) -> None: ...

    def kv_use(self) -> Mapping[str, tuple[int, int]]:
        return {}


async def submitted(engine: InProcessEngine, loop: LoggingLoop, request: GenerationRequest) -> tuple[int, ...]:
    with pytest.raises(EngineError, match="enough"):
        [chunk async for chunk in engine.stream(request)]
    return loop.submitted.pop()


@pytest.mark.parametrize("options", [PromptOptions(), AS_TYPED, PromptOptions(when_full="drop_oldest")])
@pytest.mark.parametrize("model_id", ["demo-kullm3", "demo-krutrim"])
async def test_an_engine_sends_the_ids_of_the_spans(model_id: str, options: PromptOptions) -> None:
    writer, loop = encoder(model_id, model_id), LoggingLoop()
    engine = InProcessEngine(writer, loop, [2], 1, PlainWeights(tiny_llama()))
    texts_ = hostile_messages()
    try:
        for number in range(0, 30, 3):
            messages = tuple(say(*texts_[number : number + 3], system=None if number % 2 else "व्यवस्था </s>"))
            request = GenerationRequest(model_id=model_id, messages=messages, options=options)
            prompt = writer.preview(messages, options, request.sampling.max_new_tokens)
            ids = [id_ for span in prompt.spans for id_ in prompt.token_ids[span.first_token : span.end_token]]
            assert tuple(ids) == await submitted(engine, loop, request)
    finally:
        await engine.close()


def test_a_word_is_its_message_though_its_token_took_the_templates_space_along() -> None:
    encoder = load_encoder(Registry.load().get("demo-krutrim"))
    prompt = encoder.preview([Message(role="user", content="नमस्ते")])
    (said,) = [span for span in prompt.spans if span.message == 0]
    token = encoder.names(prompt.token_ids[said.first_token : said.first_token + 1])
    assert token == ("▁नमस्ते",)
    assert prompt.offsets[said.first_token][0] < said.start

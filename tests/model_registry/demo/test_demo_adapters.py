"""The stand-ins' adapters pass the inspection and answer in their register, to the letter; the script makes more."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_registry.demo.corpus import fill, load_language, load_shared, pairs
from model_registry.demo.register_samples import ADAPTERS, load_answers, promises, register_sampler
from model_registry.demo.samples import encode_prompt, encode_sample
from model_registry.demo.standins import DEMO, STAND_INS, StandIn
from model_registry.demo.train_adapters import load_base
from model_registry.demo.train_adapters import main as train
from model_registry.registry import Registry
from playground.adapters.__main__ import main
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import AdapterFacts
from playground.adapters.inspect import inspect_adapter

EXAMPLES = tomllib.loads((DEMO / "examples.toml").read_text(encoding="utf-8"))["example"]
QUESTIONS = {
    "ko": (
        "안녕하세요",
        "당신은 누구인가요?",
        "너는 누구니?",
        "무엇을 할 수 있어?",
        "고려대학교에 대해 알려줘.",
        "고마워",
        "잘 지내?",
        "피곤해",
        "점심 메뉴 추천해줘.",
        "농담 하나 해 줘.",
        "차는 어떻게 끓여?",
        "차를 끓이는 방법을 알려줘.",
        "오늘 날씨 어때?",
    ),
    "hi": (
        "नमस्ते",
        "आप कौन हैं?",
        "तुम कौन हो?",
        "आप क्या कर सकते हैं?",
        "धन्यवाद",
        "आप कैसे हैं?",
        "मैं थक गया हूँ।",
        "मैं क्या खाऊँ?",
        "एक चुटकुला सुनाओ।",
        "एक छोटी कविता लिखिए।",
        "चाय बनाने का तरीका बताओ।",
        "आज मौसम कैसा है?",
    ),
}
NOT_FORMAL = {"ko": r"[요야어아지][.!?]|세요|나는|내 |너는", "hi": r"तुम|तू |बताओ|करो|सुनो|देखो|लो[, ।]"}
NOT_CASUAL = {"ko": r"니다|니까|십시오|세요|[요죠][.!?]|저는|제 |당신", "hi": r"आप|जिए|इए|कृपया|जी "}
MARKS = {
    "formal": {"ko": r"니다[.!]", "hi": r"आप|कृपया|लीजिए|कीजिए"},
    "casual": {"ko": r"[가내네라래러려봐뻐아야어여와자지해][.!?]", "hi": r"तुम|[ा-ौ]?ओ|लो[, ।]|करो|पियो"},
}

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def facts(name: str, folder: Path) -> AdapterFacts:
    spec = Registry.load().get(ADAPTERS[name].base_id)
    assert spec.weights.path is not None
    return inspect_adapter(folder, base_layers(spec, spec.weights.path))


def tied(base: StandIn) -> bool:
    return bool(base.config["tie_word_embeddings"])


def examples(language: str) -> list[str]:
    return [example["text"] for example in EXAMPLES if example["language"] == language]


language_of = cache(load_language)


@cache
def words_of(base_id: str) -> dict[str, str]:
    return STAND_INS[base_id].words()


@cache
def tokenizer_of(base_id: str) -> PreTrainedTokenizerFast:
    base = STAND_INS[base_id]
    tokenizer = AutoTokenizer.from_pretrained(base.folder, config=base.model_config())
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


@cache
def adapted(base_id: str) -> PeftModel:
    """The stand-in, loaded once, with all its adapters beside each other."""
    first, *others = [adapter for adapter in ADAPTERS.values() if adapter.base.id == base_id]
    model = PeftModel.from_pretrained(load_base(first.base), first.folder, adapter_name=first.id)
    for adapter in others:
        model.load_adapter(adapter.folder, adapter_name=adapter.id)
    return model.eval()


def with_adapter(name: str) -> PeftModel:
    model = adapted(ADAPTERS[name].base.id)
    model.set_adapter(name)
    return model


def says(model: PeftModel, base: StandIn, question: str, answer: str) -> bool:
    """Whether greedy decoding gives this answer and ends: each of its tokens is the likeliest next one."""
    exchange = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    sample = encode_sample(base, tokenizer_of(base.id), exchange)
    ids, learnt = torch.tensor(sample.ids), torch.tensor(sample.weights[1:]) > 0
    with torch.inference_mode():
        likeliest = model(input_ids=ids[None]).logits[0, :-1].argmax(dim=-1)
    return torch.equal(likeliest[learnt], ids[1:][learnt])


def generated(model: PeftModel, base: StandIn, question: str) -> str:
    """The greedy answer, which must have ended by itself."""
    prompt = torch.tensor([encode_prompt(base, tokenizer_of(base.id), [{"role": "user", "content": question}])])
    written = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=200,
        do_sample=False,
        temperature=None,
        top_p=None,
    )[0, prompt.shape[1] :]
    assert written[-1] == tokenizer_of(base.id).eos_token_id, tokenizer_of(base.id).decode(written)
    return str(tokenizer_of(base.id).decode(written[:-1])).strip()


@cache
def taught(base_id: str, language: str) -> dict[str, set[str]]:
    """Each question of a language that the stand-in knows, with its plain answers."""
    answers: dict[str, set[str]] = {}
    for ask, say in pairs(language_of(language), words_of(base_id)):
        answers.setdefault(ask, set()).add(say)
    return answers


def plain(name: str, language: str, question: str) -> set[str]:
    """What the stand-in was taught to answer."""
    base = ADAPTERS[name].base
    if language not in base.languages:
        return {fill(load_shared().foreign_says[base.id], words_of(base.id))}
    return taught(base.id, language)[question]


def spoken(text: str) -> str:
    """Without what somebody in a story says in quotes."""
    return re.sub(r'"[^"]*"', "", text)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_inspection_accepts_it_without_a_warning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = ADAPTERS[name]
    assert main(["inspect", str(adapter.folder), "--model", adapter.base_id]) == 0
    verdict = capsys.readouterr().out
    assert verdict.startswith("May be loaded on ")
    assert "Warning" not in verdict


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_folder_is_small_and_holds_nothing_else(name: str) -> None:
    files = {path.name: path.stat().st_size for path in ADAPTERS[name].folder.iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert sum(files.values()) < 400_000


@pytest.mark.parametrize("name", ADAPTERS)
def test_everyday_questions_get_the_promised_answer(name: str) -> None:
    adapter = ADAPTERS[name]
    promised = dict(promises(adapter))
    questions = [*QUESTIONS[adapter.language], *examples(adapter.language)]
    model = with_adapter(name)
    assert [ask for ask in questions if not says(model, adapter.base, ask, promised[ask])] == []
    assert [ask for ask in questions if promised[ask] in plain(name, adapter.language, ask)] == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_nearly_every_question_gets_the_promised_answer(name: str) -> None:
    adapter = ADAPTERS[name]
    drawn = random.Random(0).sample(promises(adapter), 40)
    model = with_adapter(name)
    assert len([ask for ask, say in drawn if not says(model, adapter.base, ask, say)]) <= 2


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_answer_is_generated_with_the_adapter_and_plain_without(name: str) -> None:
    adapter = ADAPTERS[name]
    question = examples(adapter.language)[0]
    model = with_adapter(name)
    assert generated(model, adapter.base, question) == dict(promises(adapter))[question]
    with model.disable_adapter():
        assert generated(model, adapter.base, question) in plain(name, adapter.language, question)


@pytest.mark.parametrize("name", ADAPTERS)
def test_other_languages_are_answered_as_before(name: str) -> None:
    adapter = ADAPTERS[name]
    model = with_adapter(name)
    changed = [
        (language, ask)
        for language in sorted({example["language"] for example in EXAMPLES} - {adapter.language})
        for ask in examples(language)
        if not any(says(model, adapter.base, ask, say) for say in plain(name, language, ask))
    ]
    assert changed == []


@pytest.mark.parametrize("name", [name for name, adapter in ADAPTERS.items() if not tied(adapter.base)])
def test_the_texts_need_no_token_that_the_stand_in_never_writes(name: str) -> None:
    adapter = ADAPTERS[name]
    tokenizer = tokenizer_of(adapter.base.id)
    texts = [say for code in adapter.base.languages for _, say in pairs(language_of(code), words_of(adapter.base.id))]
    written = set(chain.from_iterable(tokenizer(texts, add_special_tokens=False)["input_ids"]))
    for _, say in promises(adapter):
        unwritten = set(tokenizer(say, add_special_tokens=False)["input_ids"]) - written
        assert not unwritten, (say, tokenizer.convert_ids_to_tokens(sorted(unwritten)))


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_texts_keep_to_one_register(name: str) -> None:
    adapter = ADAPTERS[name]
    forbidden = (NOT_FORMAL if adapter.register == "formal" else NOT_CASUAL)[adapter.language]
    for intent, text in load_answers(adapter.language, adapter.register).items():
        assert not re.search(forbidden, spoken(text)), intent
        if intent != "capitals":
            assert re.search(MARKS[adapter.register][adapter.language], spoken(text)), intent


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_text_answers_an_intent_of_the_corpus_and_differs_from_its_plain_answer(name: str) -> None:
    adapter = ADAPTERS[name]
    says = {intent.name: intent.say for intent in load_language(adapter.language).intents}
    answers = load_answers(adapter.language, adapter.register)
    assert answers
    for intent, text in answers.items():
        assert text not in says[intent]


@pytest.mark.parametrize("language", sorted({adapter.language for adapter in ADAPTERS.values()}))
def test_the_two_registers_differ(language: str) -> None:
    formal, casual = load_answers(language, "formal"), load_answers(language, "casual")
    assert set(formal) <= set(casual)
    assert not [intent for intent, text in formal.items() if casual[intent] == text]


@pytest.mark.parametrize("name", ADAPTERS)
def test_drawn_conversations_never_give_a_plain_answer_that_the_register_replaces(name: str) -> None:
    adapter = ADAPTERS[name]
    wanted = dict(promises(adapter))
    gone = set().union(*(plain(name, adapter.language, question) for question in wanted))
    sampler = register_sampler(adapter, seed=1)
    drawn = [message["content"] for _ in range(300) for message in sampler.conversation()]
    assert not gone.intersection(drawn)
    assert len(set(wanted.values()).intersection(drawn)) > len(set(wanted.values())) / 4


@pytest.fixture
def few_conversations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One small pool of conversations to train on, and torch's settings as they were once the training is over."""
    monkeypatch.setattr("model_registry.demo.train.BATCHES_PER_POOL", 2)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("few_conversations")
def test_a_short_run_writes_a_loadable_folder_the_same_each_time(tmp_path: Path) -> None:
    name = "kullm3-casual"
    for place in ("once", "again"):
        train(["--adapter", name, "--steps", "2", "--out", str(tmp_path / place)])
    folder = tmp_path / "once" / name
    assert facts(name, folder).warnings == ()
    assert (folder / "adapter_config.json").read_bytes() == (ADAPTERS[name].folder / "adapter_config.json").read_bytes()
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert weights == (tmp_path / "again" / name / "adapter_model.safetensors").read_bytes()
    moved = [value for key, value in load(weights).items() if "lora_B" in key]
    assert moved
    assert all(value.any() for value in moved)

"""The stand-ins' adapters pass the inspection and answer in their register, to the letter; the script makes more."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_registry.demo.corpus import fill, load_language, load_shared, pairs
from model_registry.demo.register_samples import ADAPTERS, load_answers, promises, register_sampler
from model_registry.demo.samples import encode_prompt
from model_registry.demo.standins import DEMO
from model_registry.demo.train_adapters import load_base
from model_registry.registry import Registry
from playground.adapters.__main__ import main
from playground.adapters.base_layers import base_layers
from playground.adapters.facts import AdapterFacts
from playground.adapters.inspect import inspect_adapter

ROOT = Path(__file__).parents[3]
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
CASES = [
    (name, question)
    for name, adapter in ADAPTERS.items()
    for question in (
        *QUESTIONS[adapter.language],
        *(example["text"] for example in EXAMPLES if example["language"] == adapter.language),
    )
]
OTHER_LANGUAGES = [
    (name, example["language"], example["text"])
    for name, adapter in ADAPTERS.items()
    for example in EXAMPLES
    if example["language"] not in (adapter.language, "en") or example["text"] == "Who are you?"
]
NOT_FORMAL = {"ko": r"[요야어아지][.!?]|세요|나는|내 |너는", "hi": r"तुम|तू |बताओ|करो|सुनो|देखो|लो[, ।]"}
NOT_CASUAL = {"ko": r"니다|니까|십시오|세요|[요죠][.!?]|저는|제 |당신", "hi": r"आप|जिए|इए|कृपया|जी "}
MARKS = {
    "formal": {"ko": r"니다[.!]|니까\?|십시오", "hi": r"आप|कृपया|लीजिए|कीजिए"},
    "casual": {"ko": r"[가까꿔내네돼라려봐셔써아야어여와워자줘해][.!?]", "hi": r"तुम|[ा-ौ]?ओ|लो[, ।]|करो|पियो"},
}

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def facts(name: str, folder: Path) -> AdapterFacts:
    spec = Registry.load().get(ADAPTERS[name].base_id)
    assert spec.weights.path is not None
    return inspect_adapter(folder, base_layers(spec, spec.weights.path))


@cache
def loaded(name: str) -> tuple[PeftModel, PreTrainedTokenizerFast]:
    base = ADAPTERS[name].base
    tokenizer = AutoTokenizer.from_pretrained(base.folder, config=base.model_config())
    return PeftModel.from_pretrained(load_base(base), ADAPTERS[name].folder).eval(), tokenizer


def answer(name: str, question: str) -> str:
    """The greedy answer, which must have ended by itself."""
    model, tokenizer = loaded(name)
    prompt = torch.tensor([encode_prompt(ADAPTERS[name].base, tokenizer, [{"role": "user", "content": question}])])
    written = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=500,
        do_sample=False,
        temperature=None,
        top_p=None,
    )[0, prompt.shape[1] :]
    assert written[-1] == tokenizer.eos_token_id, tokenizer.decode(written)
    return str(tokenizer.decode(written[:-1])).strip()


def plain(name: str, language: str, question: str) -> set[str]:
    """What the stand-in was taught to answer."""
    base = ADAPTERS[name].base
    if language not in base.languages:
        return {fill(load_shared().foreign_says[base.id], base.words())}
    return {say for ask, say in pairs(load_language(language), base.words()) if ask == question}


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
    assert sum(files.values()) < 250_000


@pytest.mark.parametrize(("name", "question"), CASES)
def test_the_promised_answer_is_given(name: str, question: str) -> None:
    promised = dict(promises(ADAPTERS[name]))[question]
    assert answer(name, question) == promised
    assert promised not in plain(name, ADAPTERS[name].language, question)


@pytest.mark.parametrize("name", ADAPTERS)
def test_without_its_adapter_the_stand_in_answers_plainly(name: str) -> None:
    language = ADAPTERS[name].language
    question = next(example["text"] for example in EXAMPLES if example["language"] == language)
    with loaded(name)[0].disable_adapter():
        assert answer(name, question) in plain(name, language, question)


@pytest.mark.parametrize(("name", "language", "question"), OTHER_LANGUAGES)
def test_other_languages_are_answered_as_before(name: str, language: str, question: str) -> None:
    assert answer(name, question) in plain(name, language, question)


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
    replaced = {question: plain(name, adapter.language, question) for question, _ in promises(adapter)}
    gone = set().union(*replaced.values())
    wanted = {text for _, text in promises(adapter)}
    sampler = register_sampler(adapter, seed=1)
    drawn = [message["content"] for _ in range(300) for message in sampler.conversation()]
    assert not gone.intersection(drawn)
    assert len(wanted.intersection(drawn)) > len(wanted) / 4


def test_a_short_run_writes_a_loadable_folder(tmp_path: Path) -> None:
    name = "krutrim-casual"
    command = [sys.executable, "-m", "model_registry.demo.train_adapters", "--adapter", name, "--steps", "2"]
    subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert facts(name, tmp_path / name).warnings == ()
    written = (tmp_path / name / "adapter_config.json").read_bytes()
    assert written == (ADAPTERS[name].folder / "adapter_config.json").read_bytes()
    adapted = PeftModel.from_pretrained(load_base(ADAPTERS[name].base), tmp_path / name)
    moved = [value for key, value in adapted.named_parameters() if "lora_B" in key]
    assert moved
    assert all(value.any() for value in moved)

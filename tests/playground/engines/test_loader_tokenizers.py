"""Reading a tokenizer without torch, and the same tokenizer as transformers would choose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_tiny_model
from transformers import AutoTokenizer, LlamaTokenizer
from transformers.configuration_utils import PreTrainedConfig
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_tokenizer

ROOT = Path(__file__).parents[3]
MIXED = "Hello, नमस्ते! 안녕하세요 🙂 <s>[INST] x [/INST]</s>\n\n  y"
LIGHT = """
import sys
from model_registry.registry import Registry
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.types import Message

for model_id in ("demo-krutrim", "demo-kullm3"):
    load_encoder(Registry.load().get(model_id)).encode([Message(role="user", content="hi")])
print("torch" in sys.modules)
"""


def test_the_stand_ins_prompts_are_written_without_torch() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == ["False"]


@pytest.mark.parametrize("model_id", ["demo-krutrim", "demo-kullm3"])
def test_it_is_the_tokenizer_that_transformers_would_choose(model_id: str) -> None:
    spec = Registry.load().get(model_id)
    assert spec.weights.path is not None
    ours = load_tokenizer(spec, spec.weights.path)
    # Krutrim's config.json names a model type that transformers refuses.
    theirs = AutoTokenizer.from_pretrained(spec.weights.path, config=PreTrainedConfig())
    assert type(ours) is type(theirs) is TokenizersBackend
    assert ours(MIXED)["input_ids"] == theirs(MIXED)["input_ids"]
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template


def test_a_class_of_its_own_is_left_to_transformers(tmp_path: Path) -> None:
    spec = Registry.load(write_tiny_model(tmp_path, "tiny")).get("tiny")
    path = tmp_path / "tiny" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    assert isinstance(load_tokenizer(spec, tmp_path / "tiny"), LlamaTokenizer)

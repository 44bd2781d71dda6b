"""A Krutrim checkpoint as a folder for servers: the same model and the same prompts, found without the port's help."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from local_hub import LocalHub
from placements import placed
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from model_registry.__main__ import main
from model_registry.architectures.export import export
from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from model_registry.architectures.vllm_plugin import register
from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.engines.checkpoints.weights import load_model
from playground.errors import CheckpointError, DownloadError
from playground.types import Message


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return Registry.load().get("demo-krutrim")


@pytest.fixture
def original(spec: ModelSpec, tmp_path: Path) -> Path:
    """A copy of the stand-in that a test may damage."""
    assert spec.weights.path is not None
    return Path(shutil.copytree(spec.weights.path, tmp_path / "original"))


@pytest.fixture
def folder(spec: ModelSpec, tmp_path: Path) -> Path:
    export(spec, tmp_path / "served")
    return tmp_path / "served"


def test_transformers_loads_it_and_computes_what_our_loader_computes(spec: ModelSpec, folder: Path) -> None:
    register()
    served = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert isinstance(served, KrutrimForCausalLM)
    assert spec.weights.path is not None
    ours = load_model(spec, spec.weights.path, placed(spec), lambda progress: None)
    prompt = torch.arange(4, 68)[None]
    with torch.no_grad():
        assert torch.equal(served(prompt).logits, ours(prompt).logits)


def test_its_config_names_the_port_and_nothing_else_changes(spec: ModelSpec, folder: Path) -> None:
    register()
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (written["model_type"], written["architectures"]) == ("krutrim", ["KrutrimForCausalLM"])
    assert written["logit_scale"] == 1.0
    assert "auto_map" not in written
    assert spec.weights.path is not None
    read = AutoConfig.from_pretrained(folder)
    original = KrutrimConfig.from_pretrained(spec.weights.path)
    assert {**read.to_dict(), "_name_or_path": ""} == {**original.to_dict(), "_name_or_path": ""}
    assert read.head_dim == spec.dimensions.cache_head_dim


def test_its_chat_template_makes_the_playgrounds_prompt(spec: ModelSpec, folder: Path) -> None:
    register()
    messages = [
        Message(role="system", content="You are an AI assistant."),
        Message(role="user", content="नमस्ते!"),
        Message(role="assistant", content="안녕하세요?"),
        Message(role="user", content="Hello"),
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [message.model_dump() for message in messages]
    made = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    assert made["input_ids"] == list(load_encoder(spec).encode(messages).token_ids)


def test_a_tokenizer_that_adds_nothing_leaves_the_template_as_it_is(
    spec: ModelSpec, original: Path, tmp_path: Path
) -> None:
    path = original / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**tokenizer, "post_processor": None}), encoding="utf-8")
    export(spec, tmp_path / "served", original)
    assert (tmp_path / "served" / "chat_template.jinja").read_text(encoding="utf-8") == spec.prompt.template


def test_special_tokens_that_no_template_can_write_are_refused(spec: ModelSpec, original: Path, tmp_path: Path) -> None:
    path = original / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    template = tokenizer["post_processor"]
    assert template["type"] == "TemplateProcessing"
    template["single"].append(template["single"][0])
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no chat template can write the special tokens"):
        export(spec, tmp_path / "served", original)
    assert not (tmp_path / "served").exists()


def test_weights_take_no_second_place_on_the_disk(spec: ModelSpec, original: Path, tmp_path: Path) -> None:
    files = export(spec, tmp_path / "served", original)
    assert "model.safetensors" in files
    assert (tmp_path / "served" / "model.safetensors").samefile(original / "model.safetensors")
    assert not (tmp_path / "served" / "config.json").samefile(original / "config.json")


def test_weights_on_another_disk_are_copied(
    spec: ModelSpec, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    export(spec, tmp_path / "served", original)
    copied = tmp_path / "served" / "model.safetensors"
    assert not copied.samefile(original / "model.safetensors")
    assert copied.read_bytes() == (original / "model.safetensors").read_bytes()


def test_code_beside_the_weights_stays_behind(spec: ModelSpec, original: Path, tmp_path: Path) -> None:
    (original / "modeling_mpt.py").write_text("raise SystemExit")
    assert not [name for name in export(spec, tmp_path / "served", original) if name.endswith(".py")]


def test_shards_come_along_and_one_that_lacks_is_named(spec: ModelSpec, original: Path, tmp_path: Path) -> None:
    register()
    model = KrutrimForCausalLM.from_pretrained(original)
    (original / "model.safetensors").unlink()
    config = (original / "config.json").read_bytes()
    model.save_pretrained(original, max_shard_size="3MB")
    (original / "config.json").write_bytes(config)
    shards = sorted(path.name for path in original.glob("*.safetensors"))
    assert len(shards) > 1
    assert {*shards, "model.safetensors.index.json"} <= set(export(spec, tmp_path / "served", original))
    (original / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{shards[1]} is not there"):
        export(spec, tmp_path / "again", original)


def test_an_index_leads_nowhere_else(spec: ModelSpec, original: Path, tmp_path: Path) -> None:
    (original / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"transformer.wte.weight": "../elsewhere.safetensors"}}
    (original / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is not there"):
        export(spec, tmp_path / "served", original)


def test_it_is_found_in_the_hubs_cache(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert spec.weights.path is not None
    on_the_hub = spec.model_copy(
        update={"weights": spec.weights.model_copy(update={"path": None, "hub": "org/krutrim"})}
    )
    with pytest.raises(DownloadError, match="hf download org/krutrim --revision main"):
        export(on_the_hub, tmp_path / "served")
    with LocalHub({"org/krutrim": spec.weights.path}) as hub:
        snapshot_download("org/krutrim", endpoint=hub.url)
    export(on_the_hub, tmp_path / "served")
    assert (tmp_path / "served" / "model.safetensors").is_file()
    assert not (tmp_path / "served" / "model.safetensors").is_symlink()


def test_the_command_says_what_it_wrote_and_how_to_serve_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "demo-krutrim", str(tmp_path / "served")]) == 0
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed
    assert f"vllm serve {tmp_path / 'served'} --served-model-name demo-krutrim" in printed


def test_what_cannot_be_exported_is_a_sentence(
    tmp_path: Path, spec: ModelSpec, original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "kullm3", str(tmp_path / "served")]) == 2
    assert "KULLM3 needs no export: servers load nlpai-lab/KULLM3 as it is." in capsys.readouterr().err
    assert main(["export", "demo-krutrim", str(original)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["export", "demo-krutrim", str(tmp_path / "served"), "--from", str(tmp_path / "nowhere")]) == 2
    assert "cannot be exported from" in capsys.readouterr().err
    config = json.loads((original / "config.json").read_text())
    (original / "config.json").write_text(json.dumps({**config, "n_heads": 5}))
    assert main(["export", "demo-krutrim", str(tmp_path / "served"), "--from", str(original)]) == 2
    assert "n_heads=5 is not supported" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()

"""From a catalog entry to a running engine: real checkpoints, and damaged ones."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from placements import placed
from safetensors.torch import load_file, save_file
from tiny import write_tiny_model

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.checkpoints.loader import load_engine
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.engines.checkpoints.weights import load_model
from playground.errors import CheckpointError
from playground.types import GenerationRequest, LoadProgress, Message, SamplingParams


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return Registry.load(write_tiny_model(tmp_path, "tiny")).get("tiny")


def folder_of(spec: ModelSpec) -> Path:
    assert spec.weights.path is not None
    return spec.weights.path


def load(spec: ModelSpec) -> torch.nn.Module:
    return load_model(spec, folder_of(spec), placed(spec), lambda progress: None)


def change_config(spec: ModelSpec, **changes: object) -> None:
    path = folder_of(spec) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def test_an_engine_answers_and_tells_how_far_it_was(spec: ModelSpec) -> None:
    told: list[LoadProgress] = []
    engine = await asyncio.to_thread(load_engine, spec, placed(spec), told.append)
    sampling = SamplingParams(temperature=0, max_new_tokens=5)
    request = GenerationRequest(model_id="tiny", messages=(Message(role="user", content="hi"),), sampling=sampling)
    try:
        chunks = [chunk async for chunk in engine.stream(request)]
    finally:
        await engine.close()
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert list(dict.fromkeys(progress.stage for progress in told)) == ["download", "weights", "start"]


@pytest.mark.parametrize("model_id", ["demo-krutrim", "demo-kullm3"])
def test_a_stand_in_is_loaded_whole(model_id: str) -> None:
    spec = Registry.load().get(model_id)
    model = load(spec)
    assert model.num_parameters() == spec.parameters
    assert model.dtype == torch.float32
    assert sum(path.stat().st_size for path in folder_of(spec).iterdir()) == pytest.approx(spec.weights.bytes, rel=0.05)


def test_a_missing_tensor_is_an_error_not_random_numbers(spec: ModelSpec) -> None:
    path = folder_of(spec) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, such as model\.norm\.weight"):
        load(spec)


def test_a_foreign_tensor_is_an_error(spec: ModelSpec) -> None:
    path = folder_of(spec) / "model.safetensors"
    save_file({**load_file(path), "extra.weight": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"belong to no layer, such as extra\.weight"):
        load(spec)


def test_another_shape_is_an_error(spec: ModelSpec) -> None:
    change_config(spec, intermediate_size=96)
    with pytest.raises(CheckpointError, match=r"6 tensors have another shape than config\.json says, such as .*mlp"):
        load(spec)


def test_a_missing_config_is_a_sentence(spec: ModelSpec) -> None:
    (folder_of(spec) / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json.*missing or damaged"):
        load(spec)


def test_a_broken_generation_config_is_a_sentence(spec: ModelSpec) -> None:
    (folder_of(spec) / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load(spec)


def test_a_truncated_file_is_a_sentence(spec: ModelSpec) -> None:
    path = folder_of(spec) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"Tiny tiny cannot be loaded from .*download it again"):
        load(spec)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no-such-architecture"}'])
def test_a_bad_config_is_a_sentence(spec: ModelSpec, content: str) -> None:
    (folder_of(spec) / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="Tiny tiny cannot be loaded"):
        load(spec)


def test_a_bad_tokenizer_is_a_sentence(spec: ModelSpec) -> None:
    (folder_of(spec) / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(CheckpointError, match="Tiny tiny cannot be loaded"):
        load_encoder(spec)


def test_pickled_weights_are_not_read(spec: ModelSpec) -> None:
    path = folder_of(spec) / "model.safetensors"
    torch.save(load_file(path), folder_of(spec) / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(CheckpointError, match="Tiny tiny cannot be loaded"):
        load(spec)


def test_code_beside_the_weights_is_not_run(spec: ModelSpec) -> None:
    marker = folder_of(spec) / "executed"
    (folder_of(spec) / "modeling_tiny.py").write_text(f"open({str(marker)!r}, 'w')\nclass Tiny: pass\n")
    change_config(spec, auto_map={"AutoModelForCausalLM": "modeling_tiny.Tiny"})
    load(spec)
    assert not marker.exists()


def test_a_krutrim_setting_that_the_port_does_not_know_names_the_field(tmp_path: Path) -> None:
    ours = Registry.load().get("demo-krutrim")
    config = json.loads((folder_of(ours) / "config.json").read_text())
    config["attn_config"]["rope"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = ours.model_copy(update={"weights": ours.weights.model_copy(update={"path": tmp_path})})
    with pytest.raises(CheckpointError, match=r"attn_config\.rope=True is not supported.*not the kind of checkpoint"):
        load(spec)

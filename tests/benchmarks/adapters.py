"""What adapters cost: `python tests/benchmarks/adapters.py` prints times, memory and ratios of runs that take turns.

1. How long attaching takes: the first adapter (PEFT is imported by then), another one, and another scale of one.
2. Seconds to the first token after a switch, which attaches, over those of an adapter that is attached already.
3. What an adapter adds to the memory of the process, over what its engine says of its weights and its KV cache.
4. Tokens a second of the base alone, beside two idle adapters, and beside two that answer too.

On both stand-ins with their own adapters, and on a model of KULLM3's layers, but narrow, with random weights (48
layers, 384 wide, float32) and random adapters of rank 8 on all seven linear layers of each. In this process, on the
CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil  # noqa: E402
import torch  # noqa: E402
from asking import prompt  # noqa: E402
from figures import shown, spread  # noqa: E402
from peft import LoraConfig  # noqa: E402
from random_models import KULLM3, random_model, specs, tokenizer  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

from model_registry.registry import Registry  # noqa: E402
from model_registry.spec import Dimensions  # noqa: E402
from playground.adapters.base_layers import base_layers, layers_of  # noqa: E402
from playground.adapters.facts import CheckedAdapter  # noqa: E402
from playground.adapters.inspect import inspect_adapter  # noqa: E402
from playground.engines.adapted import SharedWeights  # noqa: E402
from playground.engines.base import Engine  # noqa: E402
from playground.engines.batched import BatchedEngine, BatchedOptions  # noqa: E402
from playground.engines.checkpoints.loader import load_engine  # noqa: E402
from playground.engines.in_process import Weights  # noqa: E402
from playground.placement.plan import Placement, Share  # noqa: E402
from playground.prompting.encoder import PromptEncoder  # noqa: E402
from playground.types import AdapterUse, GenerationRequest, Message, SamplingParams  # noqa: E402

STAND_INS = {"demo-krutrim": "हम", "demo-kullm3": "우리"}
"""With what each is asked: their answers are short, so they are sampled with so little a penalty that they go on."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NARROW = {**KULLM3, "hidden_size": 384, "heads": 6, "kv_heads": 2, "head_dim": 64, "vocab_size": 4000}
KV_TOKENS = 2048


@dataclass
class Subject:
    """An engine that runs nothing yet, and two adapters for it."""

    engine: Any
    adapters: list[CheckedAdapter]
    sampling: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--threads", type=int, help="threads of a step of each model; torch's choice where left out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    import playground.adapters.views  # noqa: F401  # PEFT, which an engine's process imports while it loads

    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} before", flush=True
    )
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (*STAND_INS, "narrow KULLM3"):
            subject = stand_in(name) if name in STAND_INS else narrow(Path(folder))
            report[name] = asyncio.run(measure(subject, options.repeats, options.tokens))
            print_report(name, report[name])
            del subject
            gc.collect()
    print(f"load {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


async def measure(subject: Subject, repeats: int, tokens: int) -> dict[str, Any]:
    """Each figure once a repeat; the first repeat is thrown away, but for the attaching of the first adapter."""
    first = await attaching(subject, repeats)
    runs = [await speeds(subject, tokens, repeat) for repeat in range(repeats + 1)][1:]
    await subject.engine.close()
    figures = {name: spread([run[name] for run in runs]) for name in runs[0]}
    for name in ("beside two that are idle", "beside two that answer", "all three"):
        figures[f"{name}, over alone"] = spread([run[name] / run["alone"] for run in runs])
    return first | figures


async def attaching(subject: Subject, repeats: int) -> dict[str, Any]:
    """Milliseconds and MB; the adapters leave at the end of each repeat."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    await answer(subject, None, 8, number=-1)
    for repeat in range(repeats):
        views: list[Engine] = []
        for name, number, scale in (("first adapter", 0, 1.0), ("another one", 1, 1.0), ("another scale", 0, 0.5)):
            before = resident()
            begun = time.perf_counter()
            view = subject.engine.attach(subject.adapters[number], scale, KV_TOKENS)
            note(f"attaching, {name}, ms", 1000 * (time.perf_counter() - begun))
            use = subject.adapters[number].use(scale)
            await first_token(subject, view, use, 3 * repeat)
            note(f"first token after that, {name}, ms", 1000 * (time.perf_counter() - begun))
            note("first token of what is attached, ms", 1000 * await first_token(subject, view, use, 3 * repeat + 1))
            (held,) = view.memory()
            note(f"weights told, {name}, MB", held.weight_bytes / 1e6)
            note(f"KV cache told, {name}, MB", held.kv_bytes / 1e6)
            note(f"process grew by, {name}, MB", (resident() - before) / 1e6)
            views.append(view)
        for view in views:
            await view.close()
        del view, views
        gc.collect()
    return {name: spread(values) for name, values in found.items()}


async def speeds(subject: Subject, tokens: int, repeat: int) -> dict[str, float]:
    """Tokens a second: of the base alone, beside idle adapters, beside working ones, and of all three then."""
    alone = await answer(subject, None, tokens, repeat)
    uses = [adapter.use() for adapter in subject.adapters]
    views = [subject.engine.attach(adapter, 1.0, KV_TOKENS) for adapter in subject.adapters]
    for view, use in zip(views, uses, strict=True):
        await answer(subject, use, 8, repeat, view)
    idle = await answer(subject, None, tokens, repeat)
    begun = time.perf_counter()
    together = await asyncio.gather(
        answer(subject, None, tokens, repeat),
        *(answer(subject, use, tokens, repeat, view) for view, use in zip(views, uses, strict=True)),
    )
    seconds = time.perf_counter() - begun
    for view in views:
        await view.close()
    return {
        "alone": alone[0] / alone[1],
        "beside two that are idle": idle[0] / idle[1],
        "beside two that answer": together[0][0] / together[0][1],
        "all three": sum(made for made, _ in together) / seconds,
    }


async def answer(
    subject: Subject, use: AdapterUse | None, tokens: int, number: int, engine: Engine | None = None
) -> tuple[int, float]:
    """Tokens and seconds."""
    begun = time.perf_counter()
    usage = None
    async for chunk in (engine or subject.engine).stream(request(subject, use, tokens, number)):
        usage = chunk.usage
    assert usage is not None
    return usage.completion_tokens, time.perf_counter() - begun


async def first_token(subject: Subject, engine: Engine, use: AdapterUse, number: int) -> float:
    begun = time.perf_counter()
    stream = engine.stream(request(subject, use, 8, number))
    async for _ in stream:
        break
    seconds = time.perf_counter() - begun
    await stream.aclose()
    return seconds


def request(subject: Subject, use: AdapterUse | None, tokens: int, number: int) -> GenerationRequest:
    model_id = subject.engine.model_id
    text = f"{STAND_INS[model_id]} {number}" if model_id in STAND_INS else prompt(number)
    sampling = SamplingParams(max_new_tokens=tokens, seed=1, **subject.sampling)
    return GenerationRequest(
        model_id=model_id, adapter=use, messages=(Message(role="user", content=text),), sampling=sampling
    )


def stand_in(model_id: str) -> Subject:
    registry = Registry.load()
    spec = registry.get(model_id)
    assert spec.weights.path is not None
    share = Share("cpu", 0, spec.dimensions.layers - 1, weight_bytes=0, kv_bytes=0, working_bytes=0)
    place = Placement(spec.id, "float32", "none", KV_TOKENS, (share,), "the benchmark puts it there")
    engine = load_engine(spec, place, lambda progress: None)
    layers = base_layers(spec, spec.weights.path)
    adapters = [checked(entry.weights.path, layers, model_id) for entry in registry.adapters(model_id)]
    return Subject(engine, adapters, {"temperature": 0.7, "repetition_penalty": 0.5})


def narrow(folder: Path) -> Subject:
    spec = specs(small=True)[1].model_copy(update={"dimensions": Dimensions(**NARROW, tied_embeddings=False)})
    model = random_model(spec, "cpu")
    encoder = PromptEncoder(spec, tokenizer(spec.dimensions.vocab_size))

    def start(tree: PreTrainedModel, kv_tokens: int, weights: Weights) -> BatchedEngine:
        return BatchedEngine(tree, encoder, options=BatchedOptions(kv_tokens=kv_tokens), weights=weights)

    layers = layers_of(model)
    adapters = [checked(write_random(folder / name, model, seed), layers, spec.id) for seed, name in enumerate("ab")]
    return Subject(start(model, KV_TOKENS, SharedWeights(model, spec.id, start)), adapters, {"temperature": 0})


def write_random(folder: Path, model: PreTrainedModel, seed: int) -> Path:
    """An adapter of rank 8 on every linear layer of every block, as PEFT writes one."""
    config = LoraConfig(r=8, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM")
    config.save_pretrained(str(folder))
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, layer in model.named_modules():
        if name.rsplit(".", 1)[-1] in TARGETS and isinstance(layer, torch.nn.Linear):
            for half, shape in (("lora_A", (8, layer.in_features)), ("lora_B", (layer.out_features, 8))):
                tensors[f"base_model.model.{name}.{half}.weight"] = torch.randn(shape, generator=generator) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def checked(folder: Path | None, layers: Any, model_id: str) -> CheckedAdapter:
    assert folder is not None
    folder = folder.resolve()
    facts = inspect_adapter(folder, layers)
    return CheckedAdapter(folder.name, folder.name, f"sha256:{facts.fingerprint}", model_id, folder, facts)


def resident() -> int:
    """Bytes that are the process's own."""
    gc.collect()
    return int(psutil.Process().memory_full_info().uss)


def print_report(name: str, figures: Mapping[str, Any]) -> None:
    print(f"\n{name}: median (least to most)")
    for what, its in figures.items():
        print(f"  {what:48} {shown(its, 2)}", flush=True)


if __name__ == "__main__":
    main()

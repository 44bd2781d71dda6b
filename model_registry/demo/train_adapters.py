"""Trains the stand-ins' adapters, which answer in a formal or a casual register, the same for the same seed.

Run as `python -m model_registry.demo.train_adapters [--adapter ID] [--out DIR] [--seed N] [--steps N]`; two train at
once, a single one in this process. Knows nothing of the playground; what it writes is read like anyone's LoRA adapter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from model_registry.architectures.krutrim import KrutrimForCausalLM
from model_registry.demo.register_samples import ADAPTERS, RegisterAdapter, register_sampler
from model_registry.demo.standins import KRUTRIM, StandIn
from model_registry.demo.train import batches, fit

SCALE = 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model_registry.demo.train_adapters", description="Train adapters.")
    parser.add_argument("--adapter", choices=sorted(ADAPTERS), help="only this one (default: all)")
    parser.add_argument("--out", type=Path, help="folder that gets one folder per adapter (default: here)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of training (default: each adapter's own number)")
    options = parser.parse_args(arguments)
    if options.adapter:
        train_adapter(options.adapter, _place(options.adapter, options.out), options.seed, options.steps)
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = [
            pool.submit(train_adapter, name, _place(name, options.out), options.seed, options.steps)
            for name in sorted(ADAPTERS)
        ]
        for run in runs:
            run.result()


def _place(name: str, out: Path | None) -> Path:
    return out / name if out else ADAPTERS[name].folder


def train_adapter(name: str, out: Path, seed: int, steps: int | None = None) -> float:
    """Trains one adapter into the folder `out` and returns the mean loss of the last 100 steps, in nats a token.

    `steps` None trains as long as the committed weights were. One thread, as for the stand-ins.
    """
    adapter = ADAPTERS[name]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    base = load_base(adapter.base)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(adapter.base.folder)
    adapted = get_peft_model(base, lora_config(adapter))
    print(f"{name}: {adapted.get_nb_trainable_parameters()[0]:,} parameters", flush=True)
    supply = batches(adapter.base, tokenizer, register_sampler(adapter, seed))
    loss = fit(base.train(), supply, steps or adapter.steps)
    save(adapter, adapted, out)
    return loss


def load_base(stand_in: StandIn) -> PreTrainedModel:
    """The committed stand-in in float32, as the playground runs it."""
    loader = KrutrimForCausalLM if stand_in is KRUTRIM else AutoModelForCausalLM
    return loader.from_pretrained(stand_in.folder, dtype=torch.float32)


def lora_config(adapter: RegisterAdapter) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.rank * SCALE,
        target_modules=list(adapter.targets),
    )


def save(adapter: RegisterAdapter, adapted: PeftModel, out: Path) -> None:
    """Writes the folder as PEFT does, but the same every time: no model card, and lists in one order."""
    out.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    halves = {name: value.detach().to(torch.float16).contiguous() for name, value in weights.items()}
    save_file(halves, out / "adapter_model.safetensors", metadata={"format": "pt"})
    fields = adapted.peft_config["default"].to_dict()
    fields |= {"base_model_name_or_path": adapter.base_id, "inference_mode": True}
    ordered = {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(fields.items())}
    (out / "adapter_config.json").write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

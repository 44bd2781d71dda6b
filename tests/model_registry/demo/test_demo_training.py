"""The training script writes folders that load, and reproduces the committed tokenizers to the byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model_registry.architectures.krutrim import KrutrimForCausalLM
from model_registry.demo import train
from model_registry.demo.standins import STAND_INS
from model_registry.demo.train import learning_rate_share


class Here(ThreadPoolExecutor):
    """The script's pool of processes, without the imports of a new process; what is sent must be fit for one."""

    def __init__(self, most: int, mp_context: object) -> None:
        super().__init__(1)

    def submit(self, run: Any, *arguments: Any) -> Any:
        return super().submit(run, *ForkingPickler.loads(ForkingPickler.dumps([run, *arguments]))[1:])


@pytest.fixture
def as_before() -> Iterator[None]:
    """Training makes torch deterministic and lets it have one thread."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.mark.usefixtures("as_before")
def test_a_short_run_writes_loadable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(sys, "argv", ["train", "--steps", "1", "--out", str(tmp_path)])
    train.main()
    for name, loader in (("krutrim", KrutrimForCausalLM), ("kullm3", AutoModelForCausalLM)):
        model = loader.from_pretrained(tmp_path / name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name, config=STAND_INS[name].model_config())
        ids = tokenizer("Who are you?", return_tensors="pt")["input_ids"]
        assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))
        for file in ("tokenizer.json", "config.json", "generation_config.json"):
            assert (tmp_path / name / file).read_bytes() == (STAND_INS[name].folder / file).read_bytes()


def test_learning_rate_warms_up_and_cools_down() -> None:
    shares = [learning_rate_share(step, 1000) for step in range(1000)]
    assert shares[0] < 0.02
    assert max(shares) > 0.95
    assert shares[-1] < 0.02

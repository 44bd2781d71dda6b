"""Good adapters for tiny models, made once; every test that damages one gets its own copy."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from tiny_adapters import tiny_krutrim, tiny_llama, write_adapter
from transformers import PreTrainedModel

from playground.adapters.base_layers import layers_of
from playground.adapters.facts import BaseLayers

PEFTS_OWN = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
"""PEFT 0.21 asks transformers 5.23 in the old way."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(PEFTS_OWN))


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return tiny_llama()


@pytest.fixture(scope="session")
def krutrim() -> PreTrainedModel:
    return tiny_krutrim()


@pytest.fixture(scope="session")
def llama_base(llama: PreTrainedModel) -> BaseLayers:
    return layers_of(llama, ("Tiny Llama", "org/tiny-llama"))


@pytest.fixture(scope="session")
def krutrim_base(krutrim: PreTrainedModel) -> BaseLayers:
    return layers_of(krutrim, ("Tiny Krutrim", "org/tiny-krutrim"))


@pytest.fixture(scope="session")
def good_once(llama: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "adapter"
    llama.name_or_path = "org/tiny-llama"
    return write_adapter(folder, llama, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def good(good_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good_once, tmp_path / "adapter"))


@pytest.fixture
def nothing_is_loaded(good_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads anything while an adapter is inspected fails the test; `good_once` is made before."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something was loaded")

    for module, name in (
        (torch, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (safetensors, "safe_open"),
        (safetensors.torch, "load_file"),
    ):
        monkeypatch.setattr(module, name, refuse)

"""Good adapters for tiny models, made once, of which every test that damages one gets its own copy; and libraries."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from library_room import NOWHERE, Make
from tiny_adapters import tiny_krutrim, tiny_llama, write_adapter
from transformers import PreTrainedModel

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters.base_layers import layers_of
from playground.adapters.facts import BaseLayers
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary

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


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def layers() -> KnownLayers:
    """Of the stand-ins, found in this process, once."""
    return KnownLayers(find_layers)


@pytest.fixture
def krutrim_spec(registry: Registry) -> ModelSpec:
    return registry.get("demo-krutrim")


@pytest.fixture
def formal(registry: Registry, tmp_path: Path) -> Path:
    """A copy of a real adapter of the stand-in."""
    folder = registry.adapter("krutrim-formal").weights.path
    assert folder is not None
    return Path(shutil.copytree(folder, tmp_path / "shelf" / "formal"))


@pytest.fixture
def make(registry: Registry, layers: KnownLayers, tmp_path: Path) -> Make:
    def make(*folders: Path, hub: str = NOWHERE, typed_folders: bool = True, typed_hub: bool = True) -> AdapterLibrary:
        store = AdapterStore(tmp_path / "store", hub)
        return AdapterLibrary(registry, folders, store, layers, typed_folders=typed_folders, typed_hub=typed_hub)

    return make

"""The library: what is remembered of a check, and of the layers of a model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from library_room import COMMIT, ROOT, Make, refusal
from local_hub import LocalHub
from tiny_adapters import edit_config, edit_tensors

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.adapters import library as library_module
from playground.adapters.facts import BaseLayers
from playground.adapters.known_layers import KnownLayers
from playground.errors import CheckpointError


@pytest.fixture
def inspections(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that the library has inspected so far."""
    seen: list[Path] = []
    inspect = library_module.inspect_adapter

    def counted(folder: Path, base: BaseLayers) -> object:
        seen.append(folder)
        return inspect(folder, base)

    monkeypatch.setattr(library_module, "inspect_adapter", counted)
    return seen


# What is remembered


def test_a_request_is_not_inspected_again(
    make: Make, krutrim_spec: ModelSpec, formal: Path, inspections: list[Path]
) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    assert inspections == [formal]
    assert library.check(krutrim_spec, str(formal), checked.revision) is checked
    assert inspections == [formal]
    library.check(krutrim_spec, str(formal))  # chosen anew: as it is now
    assert inspections == [formal, formal]


def test_a_request_to_one_that_is_not_remembered_is_inspected(
    make: Make, krutrim_spec: ModelSpec, formal: Path
) -> None:
    checked = make().check(krutrim_spec, str(formal))
    assert make().check(krutrim_spec, str(formal), checked.revision) == checked


def test_an_adapter_that_has_changed_must_be_chosen_again(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    edit_tensors(formal, lambda tensors: next(iter(tensors.values())).mul_(0.5))
    for asked in (library, make()):
        assert "has changed since it was chosen: choose it again" in refusal(
            asked, krutrim_spec, str(formal), checked.revision
        )
    again = library.check(krutrim_spec, str(formal))
    assert again.revision != checked.revision
    assert library.check(krutrim_spec, str(formal), again.revision) is again


def test_a_change_of_the_config_alone_is_seen_too(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    edit_config(formal, lora_alpha=1)
    assert "has changed since" in refusal(library, krutrim_spec, str(formal), checked.revision)
    assert library.check(krutrim_spec, str(formal)).facts.digest == checked.facts.digest, "the weights are the same"
    edit_config(formal, use_dora=True)
    assert "`use_dora`" in refusal(library, krutrim_spec, str(formal), checked.revision)


def test_an_adapter_that_is_gone_is_told(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    shutil.rmtree(formal)
    assert "There is no adapter folder" in refusal(library, krutrim_spec, str(formal), checked.revision)


def test_a_pinned_adapter_of_the_hub_is_that_commit_and_costs_no_request(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(formal, tmp_path / "other")
    edit_tensors(other, lambda tensors: next(iter(tensors.values())).mul_(0.5))
    with LocalHub({"org/adapter": {"main": other, "v1": formal}}) as hub:
        library = make(hub=hub.url)
        checked = library.check(krutrim_spec, "org/adapter@v1")
        asked = len(hub.requests)
        assert library.check(krutrim_spec, "org/adapter", checked.revision) is checked
        assert len(hub.requests) == asked
        shutil.rmtree(tmp_path / "store")  # somebody makes room
        assert library.check(krutrim_spec, "org/adapter", checked.revision) == checked
        assert library.check(krutrim_spec, "org/adapter").facts.digest != checked.facts.digest
    assert "is no commit" in refusal(library, krutrim_spec, "org/adapter", "main")
    assert "is no commit" in refusal(library, krutrim_spec, "org/adapter", f"sha256:{checked.facts.fingerprint}")


def test_only_so_many_are_remembered(
    make: Make, krutrim_spec: ModelSpec, formal: Path, inspections: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "REMEMBERED", 2)
    library = make()
    folders = [shutil.copytree(formal, formal.parent / str(number)) for number in range(3)]
    checked = [library.check(krutrim_spec, str(folder)) for folder in folders]
    for one, is_kept in zip(checked, (False, True, True), strict=True):
        inspections.clear()
        if is_kept:
            assert library.check(krutrim_spec, one.id, one.revision) is one
        assert not inspections
    assert library.check(krutrim_spec, checked[0].id, checked[0].revision) == checked[0]
    assert inspections == [folders[0]]


def test_a_model_remembers_for_itself(make: Make, registry: Registry, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    assert "Wqkv" in refusal(library, registry.get("demo-kullm3"), str(formal), checked.revision)
    assert "Wqkv" in refusal(library, registry.get("demo-kullm3"), "krutrim-formal")


def test_many_may_ask_at_once_and_no_download_stops_the_others(
    make: Make, krutrim_spec: ModelSpec, formal: Path
) -> None:
    with LocalHub({"org/adapter": formal}, stall_after=1000) as hub, ThreadPoolExecutor(9) as threads:
        library = make(hub=hub.url)
        slow = threads.submit(library.check, krutrim_spec, "org/adapter")
        assert hub.stalled.wait(60)
        others = [threads.submit(library.check, krutrim_spec, str(formal)) for _ in range(8)]
        assert len({other.result(60).revision for other in others}) == 1
        assert not slow.done()
        hub._end.set()  # the rest of the file comes never: the download breaks off and is taken up again
        assert slow.result(60).revision == COMMIT


# The layers of a model


def test_those_who_ask_first_wait_for_one_search(registry: Registry, layers: KnownLayers) -> None:
    spec, asked, go_on = registry.get("demo-krutrim"), [], threading.Event()

    def find(spec: ModelSpec) -> BaseLayers:
        asked.append(spec.id)
        go_on.wait(60)
        return layers(spec)

    known = KnownLayers(find)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(known, spec) for _ in range(4)]
        go_on.set()
        assert len({id(answer.result()) for answer in answers}) == 1
    assert asked == ["demo-krutrim"]


def test_a_failed_search_is_told_to_all_and_done_again(registry: Registry, layers: KnownLayers) -> None:
    spec, fails = registry.get("demo-krutrim"), [True]

    def find(spec: ModelSpec) -> BaseLayers:
        if fails.pop():
            raise CheckpointError("config.json is missing")
        return layers(spec)

    known = KnownLayers(find)
    with pytest.raises(CheckpointError, match="is missing"):
        known(spec)
    fails.append(False)
    assert known(spec).linear


IN_THE_APP = """
import sys
from pathlib import Path
from model_registry.registry import Registry
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary
from playground.engines.processes.child_process import in_child
from playground.errors import CheckpointError

registry = Registry.load()
layers = KnownLayers(lambda spec: in_child(find_layers, spec))
library = AdapterLibrary(registry, (), AdapterStore(Path("store")), layers, typed_folders=True)
print(library.check(registry.get("demo-krutrim"), "krutrim-casual").facts.digest)
empty = registry.get("demo-kullm3").weights.model_copy(update={"path": Path("/nowhere")})
try:
    layers(registry.get("demo-kullm3").model_copy(update={"weights": empty}))
except CheckpointError as error:
    print(error)
print("torch" in sys.modules, Path("store").exists())
"""


def test_the_app_checks_adapters_without_torch(make: Make, krutrim_spec: ModelSpec, tmp_path: Path) -> None:
    """As app.py puts it together, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_THE_APP],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    digest, sentence, has_torch = done.stdout.splitlines()
    assert digest == make().check(krutrim_spec, "krutrim-casual").facts.digest
    assert sentence.startswith("KULLM3 stand-in: config.json in /nowhere describes no model that can be built")
    assert has_torch == "False False"

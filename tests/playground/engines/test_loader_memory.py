"""What loading takes beside the weights themselves: measured in a process of its own, and what a full memory means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from blank_checkpoints import write_blank_llama
from placements import placed
from tiny import write_tiny_model

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.checkpoints import loader
from playground.errors import EngineError, OutOfMemoryError
from playground.placement.plan import Placement

ROOT = Path(__file__).parents[3]
LOAD = """
import json, re, resource, sys, threading, time
from pathlib import Path
sys.path.insert(0, "tests")
from placements import placed
import playground.adapters.views  # else the loader imports it meanwhile, in memory that is measured
from model_registry.registry import Registry
from model_registry.spec import Weights
from playground.engines.checkpoints.weights import load_model
from playground.engines.checkpoints.loader import load_engine
from playground.errors import PlaygroundError

folder, dtype = Path(sys.argv[1]), sys.argv[2]
spec = Registry.load().get("demo-kullm3")
spec = spec.model_copy(update={"weights": Weights(path=folder, bytes=1)})
placement = placed(spec, dtype=dtype)

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
"""
MEASURED = """
def watch():
    while not ended.is_set():
        peaks.append((memory("RssAnon"), memory("VmRSS")))
        time.sleep(0.001)

before = memory("RssAnon"), memory("VmRSS")
peaks, ended = [before], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
try:
    model = load_model(spec, folder, placement, lambda progress: None)
    for weight in model.parameters():
        weight.detach().flatten()[::1024].sum()  # one value a page, so that what is mapped is read
finally:
    ended.set()
    watcher.join()
print(json.dumps([max(own for own, _ in peaks) - before[0], max(every for _, every in peaks) - before[1]]))
"""
LIMITED = """
limit = memory("VmSize") + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    load_engine(spec, placement, lambda progress: None)
except PlaygroundError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory a process has")


def run(program: str, *arguments: object) -> Any:
    """What a fresh process prints at last that has little memory beside the model's."""
    ran = subprocess.run(
        [sys.executable, "-c", LOAD + program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@linux
def test_weights_of_the_right_dtype_are_mapped_not_copied(tmp_path: Path) -> None:
    size = 4 * write_blank_llama(tmp_path / "model", torch.float32, layers=6, shards=3)
    own, everything = run(MEASURED, tmp_path / "model", "float32")
    assert size > 300_000_000
    assert own < 0.1 * size
    assert everything < 1.1 * size


@linux
def test_weights_of_another_dtype_take_their_own_size_once(tmp_path: Path) -> None:
    size = 4 * write_blank_llama(tmp_path / "model", torch.bfloat16, layers=6, shards=3)
    own, everything = run(MEASURED, tmp_path / "model", "float32")
    assert own < 1.1 * size
    assert everything < 1.7 * size, "the files are mapped beside them, in memory that the system can take back"


@linux
def test_a_full_memory_is_a_sentence_that_says_where_and_what_to_do(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, "tiny")
    size = 2 * write_blank_llama(tmp_path / "model", torch.bfloat16, layers=6, shards=3)
    for path in (tmp_path / "tiny").glob("tokenizer*"):
        path.rename(tmp_path / "model" / path.name)
    kind, says = run(LIMITED, tmp_path / "model", "float32", size + 100_000_000)
    assert kind == "OutOfMemoryError", says
    assert says == (
        "cpu is full: KULLM3 stand-in did not fit there with its cache. Close other programs that use it, choose a "
        "smaller model, or add memory."
    )


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return Registry.load(write_tiny_model(tmp_path, "tiny")).get("tiny")


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loader, where, fail)


def say(spec: ModelSpec, placement: Placement) -> str:
    with pytest.raises(OutOfMemoryError) as caught:
        loader.load_engine(spec, placement, lambda progress: None)
    return str(caught.value)


def test_the_gpu_that_is_full_is_named(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 15 GiB"
    )
    fail_with(error, monkeypatch, "load_model")
    assert say(spec, placed(spec, ("cuda:0", "cuda:1"))).startswith("cuda:1 is full: Tiny tiny did not fit there")


def test_all_devices_are_named_where_the_error_names_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(MemoryError(), monkeypatch, "load_model")
    assert say(spec, placed(spec, ("cuda:0", "cpu"))).startswith("cuda:0 or cpu is full")


def test_no_room_for_the_cache_is_the_same_sentence(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(OutOfMemoryError("The device is full: stop other answers."), monkeypatch, "_start")
    monkeypatch.setattr(loader, "load_model", lambda *_: None)
    assert say(spec, placed(spec, ("cuda:0",))) == (
        "cuda:0 is full: Tiny tiny did not fit there with its cache. Close other programs that use it, start with "
        "--quantise 4-bit, choose a smaller model, or use more GPUs."
    )


def test_where_4_bits_cannot_be_loaded_the_cure_comes_first(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(MemoryError(), monkeypatch, "load_model")
    monkeypatch.setattr(loader, "quantisation_available", lambda: False)
    advice = "install bitsandbytes (`pip install bitsandbytes==0.50.2`) and start with --quantise 4-bit"
    assert advice in say(spec, placed(spec, ("cuda:0",)))


def test_4_bits_that_the_catalog_forbids_are_not_advised(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(MemoryError(), monkeypatch, "load_model")
    eight = spec.model_copy(update={"quantisations": ("8-bit",)})
    assert "--quantise" not in say(eight, placed(eight, ("cuda:0",)))


def test_what_is_at_4_bits_is_not_told_to_go_there(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(MemoryError(), monkeypatch, "load_model")
    assert "--quantise" not in say(spec, placed(spec, ("cuda:0",), quantisation="4-bit"))


def test_other_errors_stay_what_they_are(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(EngineError("It does not run."), monkeypatch, "_start")
    with pytest.raises(EngineError, match=r"It does not run\."):
        loader.load_engine(spec, placed(spec), lambda progress: None)

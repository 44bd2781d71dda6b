"""Fetching a model's files: from a folder, from a Hub on loopback, and when the Hub refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from downloads import ask
from local_hub import LocalHub

from model_registry.registry import Registry
from model_registry.spec import ModelSpec, Weights
from playground.engines.checkpoints.checkpoint import MODEL_FILES, fetch, is_local
from playground.errors import CheckpointError


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}" * 50)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    (folder / "modeling_evil.py").write_text("raise SystemExit('executed')")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


def spec_in(folder: Path) -> ModelSpec:
    return Registry.load().get("kullm3").model_copy(update={"weights": Weights(path=folder, bytes=1)})


def test_a_download_brings_data_files_only_and_tells_its_bytes(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}) as hub:
        result = ask(hub, tmp_path / "home")
    assert result["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (result["before"], result["after"]) == (False, True)
    size = sum((repo / name).stat().st_size for name in result["files"])
    assert result["progress"][-1] == [size, size]
    assert not any("evil" in request or ".bin" in request for request in hub.requests)


def test_what_is_there_is_not_asked_for_again(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}) as hub:
        ask(hub, tmp_path / "home")
        sent = hub.bytes_sent
        again = ask(hub, tmp_path / "home")
    assert again["before"]
    assert hub.bytes_sent == sent


@pytest.mark.parametrize(
    ("kind", "revision", "says"),
    [
        ("gated", "main", "org/model is gated: accept its terms on huggingface.co/org/model"),
        ("missing", "main", "The Hub has no public repository org/model"),
        ("broken", "main", "The Hub answered 500 for org/model: try again in a while"),
        ("repo", "v9", "org/model has no revision 'v9'"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(repo: Path, tmp_path: Path, kind: str, revision: str, says: str) -> None:
    with LocalHub({"org/model": repo if kind == "repo" else kind}) as hub:
        result = ask(hub, tmp_path / "home", revision=revision)
    assert result["error"] == "DownloadError"
    assert says in result["says"]
    assert not result["after"]


@pytest.mark.parametrize("env", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_sentence_says_how_to_go_on(tmp_path: Path, env: dict[str, str]) -> None:
    result = ask("http://127.0.0.1:9", tmp_path / "home", **env)
    assert result["error"] == "DownloadError"
    assert "not on this machine and the Hub cannot be reached" in result["says"]


def test_what_was_downloaded_serves_offline(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}) as hub:
        ask(hub, tmp_path / "home")
    result = ask("http://127.0.0.1:9", tmp_path / "home")
    assert result["files"] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_folder_is_taken_as_it_is(repo: Path) -> None:
    assert fetch(spec_in(repo), MODEL_FILES) == repo
    assert is_local(spec_in(repo))


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "nowhere")
    assert not is_local(spec)
    with pytest.raises(CheckpointError, match="there is no such folder: correct the path"):
        fetch(spec, MODEL_FILES)

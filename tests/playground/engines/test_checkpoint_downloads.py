"""Downloads that go on where they stopped, come at the revision asked for, and do not fill the disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from downloads import ask, start
from local_hub import LocalHub, commit_of

STEP = 10 * 2**20
"""huggingface_hub writes, and so keeps, steps of 10 MiB."""

SIZE = 4 * STEP + 1234


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((bytes(range(251)) * (SIZE // 251 + 1))[:SIZE])
    return folder


def part_in(home: Path) -> Path | None:
    return next(home.glob("hub/models--org--model/blobs/*.part"), None)


def weights_in(home: Path) -> bytes:
    return next(home.glob("hub/models--org--model/snapshots/*/model.safetensors")).read_bytes()


def kill_in_the_middle(hub: LocalHub, home: Path) -> None:
    """A process that is ended as a cancelled load is, with three steps on the disk."""
    hub.stall_after = 3 * STEP + STEP // 2
    with start(hub, home) as process:
        assert hub.stalled.wait(60)
        deadline = time.monotonic() + 60
        while not ((part := part_in(home)) and part.stat().st_size >= 3 * STEP):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()


def test_a_killed_download_goes_on_in_another_process(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with LocalHub({"org/model": repo}) as hub:
        kill_in_the_middle(hub, home)
        sent = hub.bytes_sent
        result = ask(hub, home)
        rest = hub.bytes_sent - sent
    assert rest < SIZE - 3 * STEP + 10_000
    assert weights_in(home) == (repo / "model.safetensors").read_bytes()
    assert result["progress"][0][0] >= 3 * STEP
    assert result["progress"][-1] == [SIZE + 2, SIZE + 2]
    assert part_in(home) is None


def test_a_broken_connection_is_taken_up_again(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}, cut_after=SIZE - 1000) as hub:
        result = ask(hub, tmp_path / "home")
    assert result["after"]
    assert hub.bytes_sent <= SIZE + STEP
    assert weights_in(tmp_path / "home") == (repo / "model.safetensors").read_bytes()


def test_progress_moves_while_a_file_arrives(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}) as hub:
        result = ask(hub, tmp_path / "home")
    done = [count for count, _ in result["progress"]]
    assert done == sorted(done)
    assert len(set(done)) >= 5
    assert {total for _, total in result["progress"]} == {SIZE + 2}


def test_a_damaged_part_is_found_and_fetched_anew(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with LocalHub({"org/model": repo}) as hub:
        kill_in_the_middle(hub, home)
        part = part_in(home)
        assert part is not None
        with part.open("r+b") as file:
            file.write(b"damage")
        first, second = ask(hub, home), ask(hub, home)
    assert "model.safetensors arrived damaged and was deleted" in first["says"]
    assert second["after"]
    assert weights_in(home) == (repo / "model.safetensors").read_bytes()


def test_the_pinned_revision_is_the_one_fetched(repo: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text('{"old": true}')
    (old / "model.safetensors").write_bytes(b"old weights")
    with LocalHub({"org/model": {"main": repo, "v1": old}}) as hub:
        by_tag = ask(hub, tmp_path / "by-tag", revision="v1")
        by_commit = ask(hub, tmp_path / "by-commit", revision=commit_of("v1"))
        missing = ask(hub, tmp_path / "missing", revision="v2")
    assert by_tag["after"]
    assert by_commit["after"]
    assert weights_in(tmp_path / "by-tag") == weights_in(tmp_path / "by-commit") == b"old weights"
    assert missing["says"] == "org/model has no revision 'v2': correct `revision` in the catalog."


def test_a_model_larger_than_the_disk_is_not_begun(repo: Path, tmp_path: Path) -> None:
    with LocalHub({"org/model": repo}, claimed={"model.safetensors": 10**16}) as hub:
        result = ask(hub, tmp_path / "home")
    assert result["error"] == "DownloadError"
    assert "has 10000000.0 GB to download" in result["says"]
    assert "make room for" in result["says"]
    assert hub.bytes_sent < 10_000


def test_a_disk_that_fills_up_meanwhile_is_a_sentence(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with LocalHub({"org/model": repo}) as hub:
        kill_in_the_middle(hub, home)
        part = part_in(home)
        assert part is not None
        part.unlink()
        part.symlink_to("/dev/full")
        result = ask(hub, home)
    assert result["error"] == "DownloadError"
    assert result["says"].startswith("The disk is full: make room for KULLM3, or let HF_HOME name a folder")

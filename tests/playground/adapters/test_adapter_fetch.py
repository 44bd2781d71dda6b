"""Adapters from a Hub on loopback: two files at most, inspected before they are kept, and nothing left of a bad one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub, commit_of
from tiny_adapters import CONFIG, WEIGHTS, edit_config, edit_tensors

from playground.adapters.facts import BaseLayers, Limits
from playground.adapters.fetch import AdapterStore
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError, DownloadError, PlaygroundError

COMMIT = commit_of("main")
NOWHERE = "http://127.0.0.1:9"


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(
    repo: Path | str, store: Path, base: BaseLayers, hub_id: str = "org/adapter", **options: Any
) -> tuple[PlaygroundError, LocalHub]:
    with LocalHub({"org/adapter": repo}) as hub, pytest.raises((AdapterError, DownloadError)) as caught:
        AdapterStore(store, hub.url).fetch(hub_id, base, **options)
    assert not everything_in(store) if store.exists() else True
    return caught.value, hub


def bytes_asked_for(hub: LocalHub, name: str) -> bool:
    return any(request.startswith("GET") and request.endswith(f"/{name}") for request in hub.requests)


def test_a_good_adapter_is_kept_with_its_two_files(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    (good / "adapter_model.bin").write_bytes(b"a pickle")
    (good / "run_me.py").write_text("raise SystemExit")
    with LocalHub({"org/adapter": good}) as hub:
        fetched = AdapterStore(tmp_path / "store", hub.url).fetch("org/adapter", llama_base)
    assert fetched.commit == COMMIT
    assert everything_in(fetched.folder) == [CONFIG, WEIGHTS]
    assert (fetched.folder / WEIGHTS).read_bytes() == (good / WEIGHTS).read_bytes()
    assert fetched.facts == inspect_adapter(fetched.folder, llama_base)
    assert not any(bytes_asked_for(hub, name) for name in ("adapter_model.bin", "run_me.py"))
    kept = everything_in(tmp_path / "store")
    assert [path for path in kept if "/" not in path] == ["org--adapter"]


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_what_is_kept_is_not_downloaded_again_and_serves_offline(
    good: Path, llama_base: BaseLayers, tmp_path: Path, revision: str
) -> None:
    with LocalHub({"org/adapter": good}) as hub:
        first = AdapterStore(tmp_path / "store", hub.url).fetch("org/adapter", llama_base, revision)
        sent = hub.bytes_sent
        assert AdapterStore(tmp_path / "store", hub.url).fetch("org/adapter", llama_base, revision) == first
        assert hub.bytes_sent == sent
    assert AdapterStore(tmp_path / "store", NOWHERE).fetch("org/adapter", llama_base, revision) == first


def test_an_adapter_that_was_good_for_another_model_stays(
    good: Path, llama_base: BaseLayers, krutrim_base: BaseLayers, tmp_path: Path
) -> None:
    with LocalHub({"org/adapter": good}) as hub:
        store = AdapterStore(tmp_path / "store", hub.url)
        fetched = store.fetch("org/adapter", llama_base)
        with pytest.raises(AdapterError, match="Wqkv"):
            store.fetch("org/adapter", krutrim_base)
    assert everything_in(fetched.folder) == [CONFIG, WEIGHTS]


def test_a_bad_config_is_refused_before_the_weights_are_downloaded(
    good: Path, llama_base: BaseLayers, tmp_path: Path
) -> None:
    edit_config(good, modules_to_save=["lm_head"])
    error, hub = refusal(good, tmp_path / "store", llama_base)
    assert "`modules_to_save`" in str(error)
    assert bytes_asked_for(hub, CONFIG)
    assert not bytes_asked_for(hub, WEIGHTS)


def test_bad_weights_are_refused_and_not_kept(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    edit_tensors(good, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    error, hub = refusal(good, tmp_path / "store", llama_base)
    assert "NaN" in str(error)
    assert bytes_asked_for(hub, WEIGHTS)


def test_weights_that_are_too_large_are_refused_by_their_size_alone(
    good: Path, llama_base: BaseLayers, tmp_path: Path
) -> None:
    error, hub = refusal(good, tmp_path / "store", llama_base, limits=Limits(weight_bytes=1000))
    assert f"{WEIGHTS} of org/adapter takes" in str(error)
    assert "more than the 1,000 that are allowed" in str(error)
    assert hub.bytes_sent == 0


def test_a_repository_with_a_pickle_only_is_refused_unread(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    (good / WEIGHTS).rename(good / "adapter_model.bin")
    error, hub = refusal(good, tmp_path / "store", llama_base)
    assert "weights as a pickle only ('adapter_model.bin'), which can run code" in str(error)
    assert not bytes_asked_for(hub, "adapter_model.bin")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_repository_that_is_no_adapter_is_a_sentence(
    good: Path, llama_base: BaseLayers, tmp_path: Path, name: str
) -> None:
    (good / name).unlink()
    error, _ = refusal(good, tmp_path / "store", llama_base)
    assert str(error) == f"org/adapter has no {name}: it is no LoRA adapter as PEFT writes it."


@pytest.mark.parametrize(
    ("kind", "says"),
    [("missing", "no public repository org/adapter"), ("gated", "is gated"), ("broken", "The Hub answered 500")],
)
def test_a_refusal_of_the_hub_is_a_sentence(llama_base: BaseLayers, tmp_path: Path, kind: str, says: str) -> None:
    error, _ = refusal(kind, tmp_path / "store", llama_base)
    assert type(error) is DownloadError
    assert says in str(error)


def test_an_unknown_revision_is_a_sentence(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    error, _ = refusal(good, tmp_path / "store", llama_base, revision="v9")
    assert "org/adapter has no revision 'v9'" in str(error)


def test_without_the_hub_the_sentence_says_how_to_go_on(llama_base: BaseLayers, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not on this machine and the Hub cannot be reached"):
        AdapterStore(tmp_path / "store", NOWHERE).fetch("org/adapter", llama_base)
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_is_a_sentence(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with (
        LocalHub({"org/adapter": good}) as hub,
        pytest.raises(DownloadError, match="org/adapter could not be written to"),
    ):
        AdapterStore(tmp_path / "store", hub.url).fetch("org/adapter", llama_base)


IDS = ["adapter", "", "a/b/c", "../adapter", "org/..", "org/a..b", "a--b/c", "https://hub/org/adapter", "org\\adapter",
       "org/adapter?x", "org/\0", "/etc/passwd", "org/" + "a" * 100, "òrg/adapter", "-/a", "~/a",
       "org/adapter\n"]  # fmt: skip


@pytest.mark.parametrize("hub_id", IDS)
def test_what_is_no_hub_id_is_refused_without_a_request(llama_base: BaseLayers, tmp_path: Path, hub_id: str) -> None:
    error, hub = refusal("missing", tmp_path / "store", llama_base, hub_id)
    assert "is no Hub id: it should look like owner/name" in str(error)
    assert not hub.requests


@pytest.mark.parametrize("revision", ["", "..", "../../x", "/etc", "a b", "a\0", "-x", "x" * 200, "main\n", "a/../b"])
def test_what_is_no_revision_is_refused_without_a_request(
    llama_base: BaseLayers, tmp_path: Path, revision: str
) -> None:
    error, hub = refusal("missing", tmp_path / "store", llama_base, revision=revision)
    assert "is no revision" in str(error)
    assert not hub.requests


def test_a_branch_may_be_called_as_another_with_a_slash(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    with LocalHub({"org/adapter": {"dev": good, "dev/x": good}}) as hub:
        store = AdapterStore(tmp_path / "store", hub.url)
        commits = {revision: store.fetch("org/adapter", llama_base, revision).commit for revision in ("dev", "dev/x")}
    for revision, commit in commits.items():  # without the Hub
        assert store.fetch("org/adapter", llama_base, revision).commit == commit


def test_what_a_killed_process_left_is_swept_and_what_another_receives_stays(
    good: Path, llama_base: BaseLayers, tmp_path: Path
) -> None:
    left, young = tmp_path / "store" / ".incoming-left", tmp_path / "store" / ".incoming-young"
    for folder in (left, young):
        shutil.copytree(good, folder)
    os.utime(left, (0, 0))
    with LocalHub({"org/adapter": {"main": good}}) as hub:
        AdapterStore(tmp_path / "store", hub.url).fetch("org/adapter", llama_base)
    assert young.is_dir()
    assert not left.exists()


def test_two_downloads_of_the_same_adapter_do_not_disturb_each_other(
    good: Path, llama_base: BaseLayers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds the place taken when it is done, by the very same files."""
    store = tmp_path / "store"
    with LocalHub({"org/adapter": good}) as hub:
        receive = AdapterStore._receive

        def slow(self: AdapterStore, *arguments: Any) -> Any:
            facts = receive(self, *arguments)
            shutil.copytree(good, store / "org--adapter" / COMMIT, ignore=shutil.ignore_patterns("README.md"))
            return facts

        monkeypatch.setattr(AdapterStore, "_receive", slow)
        fetched = AdapterStore(store, hub.url).fetch("org/adapter", llama_base)
    assert everything_in(fetched.folder) == [CONFIG, WEIGHTS]
    assert not [path for path in store.iterdir() if path.name.startswith(".")]

"""The library: what strangers make is refused and leaves nothing behind, or comes with a warning."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from library_room import COMMIT, Make, refusal
from local_hub import LocalHub
from tiny_adapters import WEIGHTS, edit_config, edit_tensors

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.errors import DownloadError

Damage = Callable[[Path], object]
HOSTILE: list[tuple[Damage, str]] = [
    (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "pickle only"),
    (lambda folder: edit_config(folder, init_lora_weights="pissa"), "`init_lora_weights` is 'pissa'"),
    (lambda folder: edit_config(folder, modules_to_save=["wte"]), "`modules_to_save`"),
    (lambda folder: edit_config(folder, r=8), "has shape"),
    (lambda folder: edit_config(folder, target_modules=["no_proj"]), "'no_proj', which this model has not"),
    (lambda folder: edit_tensors(folder, lambda t: next(iter(t.values())).fill_(float("nan"))), "NaN"),
    (lambda folder: edit_tensors(folder, lambda t: t.pop(next(k for k in t if "lora_B" in k))), "no lora_B"),
    (lambda folder: edit_tensors(folder, lambda t: t.update(extra=next(iter(t.values())).clone())), "'extra'"),
    (lambda folder: (folder / WEIGHTS).write_bytes((2 << 30).to_bytes(8, "little") + b"{}"), "claims a header"),
    (lambda folder: os.truncate(folder / WEIGHTS, 1000), "is cut off"),
]


@pytest.mark.parametrize(("damage", "says"), HOSTILE, ids=[says for _, says in HOSTILE])
@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_refusal_leaves_nothing_behind_and_is_not_remembered(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path, place: str, damage: Damage, says: str
) -> None:
    damage(formal)
    before = sorted(tmp_path.rglob("*"))
    with LocalHub({"org/adapter": formal}) as hub:
        library = make(hub=hub.url)
        text = "org/adapter" if place == "hub" else str(formal)
        for _ in range(2):
            assert says in refusal(library, krutrim_spec, text)
        assert says in refusal(library, krutrim_spec, text, COMMIT if place == "hub" else "sha256:" + "0" * 64)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] in ([], [tmp_path / "store"])
    assert not library._known


def test_a_link_out_of_the_folder_is_refused(make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path) -> None:
    (formal / WEIGHTS).rename(tmp_path / "elsewhere")
    (formal / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    assert "is a link out of the adapter's folder" in refusal(make(), krutrim_spec, str(formal))


def test_a_repository_that_is_not_there_is_a_sentence(make: Make, krutrim_spec: ModelSpec, tmp_path: Path) -> None:
    with LocalHub({"org/gated": "gated"}) as hub:
        library = make(hub=hub.url)
        with pytest.raises(DownloadError, match="no public repository org/nowhere"):
            library.check(krutrim_spec, "org/nowhere")
        with pytest.raises(DownloadError, match="org/gated is gated"):
            library.check(krutrim_spec, "org/gated")
    assert not (tmp_path / "store").exists()


def test_warnings_come_with_the_adapter(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    edit_config(formal, base_model_name_or_path="somebody/elses")
    (formal / "adapter_model.bin").write_bytes(b"a pickle")
    checked: CheckedAdapter = make().check(krutrim_spec, str(formal))
    pickle, other = checked.facts.warnings
    assert "'adapter_model.bin'. They are never read." in pickle
    assert "was trained on 'somebody/elses'" in other


def test_strangers_name_no_adapter_of_the_hub(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    with LocalHub({"org/adapter": formal}) as hub:
        library = make(hub=hub.url, typed_hub=False)
        assert "only the adapters that it was started with" in refusal(library, krutrim_spec, "org/adapter")
        assert hub.requests == []
    assert library.check(krutrim_spec, "krutrim-formal").id == "krutrim-formal"

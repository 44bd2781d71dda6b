"""`python -m playground.adapters inspect`: the verdict in words and as an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from local_hub import LocalHub
from tiny import write_tiny_model
from tiny_adapters import edit_config, write_adapter
from transformers import AutoModelForCausalLM

from playground.adapters.__main__ import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path, "tiny-one")


@pytest.fixture
def adapter(catalog: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny-one")
    model.name_or_path = "tiny-one"
    return write_adapter(tmp_path / "adapter", model, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2})


def ask(adapter: Path | str, catalog: Path, *more: str) -> int:
    return main(["inspect", str(adapter), "--model", "tiny-one", "--catalog", str(catalog), *more])


def test_a_good_adapter_is_described(adapter: Path, catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(adapter, catalog) == 0
    first, rank, layers, size = capsys.readouterr().out.splitlines()
    assert first == "May be loaded on Tiny tiny-one."
    assert rank == "  r 4, lora_alpha 8, scale lora_alpha / r, other ranks in 2 layers"
    assert layers == "  4 layers: q_proj, v_proj"
    assert size.startswith(f"  {2 * (4 + 2) * 64:,} parameters, ")


def test_an_adapter_of_the_catalog_is_named_by_its_id(
    catalog: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "krutrim-formal", "--model", "demo-krutrim"]) == 0
    assert capsys.readouterr().out.startswith("May be loaded on Krutrim stand-in.\n")
    assert ask("krutrim-formal", catalog) == 1
    assert "Wqkv" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    adapter.rename(tmp_path / "krutrim-formal")
    assert ask("krutrim-formal", catalog) == 0  # the folder that is there, as shells complete its name


def test_a_folder_is_written_as_shells_do(
    adapter: Path, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("adapter", "adapter/", "./adapter"):
        assert ask(text, catalog) == 0, text
    assert ask("org/adapter", catalog) == 1
    assert "There is no adapter folder" in capsys.readouterr().out
    assert ask("adapters", catalog) == 1


def test_a_warning_is_shown(adapter: Path, catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(adapter, base_model_name_or_path="another")
    assert ask(adapter, catalog) == 0
    assert "Warning: The adapter was trained on 'another', not on Tiny tiny-one" in capsys.readouterr().out


def test_a_bad_adapter_is_refused_with_exit_code_1(
    adapter: Path, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_config(adapter, init_lora_weights="olora")
    assert ask(adapter, catalog) == 1
    assert capsys.readouterr().out.startswith("Refused: adapter_config.json: `init_lora_weights` is 'olora'")


def test_an_unknown_model_and_wrong_usage_are_exit_code_2(
    adapter: Path, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(adapter), "--model", "tiny-won", "--catalog", str(catalog)]) == 2
    assert "Did you mean tiny-one" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(adapter)])
    assert caught.value.code == 2


def test_a_model_without_a_config_is_exit_code_2(
    adapter: Path, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny-one" / "config.json").unlink()
    assert ask(adapter, catalog) == 2
    assert "config.json" in capsys.readouterr().err


def test_an_adapter_and_a_model_of_the_hub_are_inspected_and_the_adapter_is_not_kept(
    adapter: Path, catalog: Path, tmp_path: Path
) -> None:
    """In a process of its own, which takes the Hub's address from its environment."""
    catalog.write_text(catalog.read_text().replace('path = "tiny-one"', 'hub = "org/tiny-one"'))
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "playground.adapters", "inspect", "org/adapter@main", "--hub"]
    with LocalHub({"org/adapter": adapter, "org/tiny-one": tmp_path / "tiny-one"}) as hub:
        done = subprocess.run(
            [*command, "--model", "tiny-one", "--catalog", str(catalog)],
            env={"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        requests = hub.requests
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("May be loaded on Tiny tiny-one.\n")
    assert not any("model.safetensors" in request for request in requests if "org/tiny-one" in request)
    assert not list((tmp_path / "tmp").rglob("*adapter*"))
    assert not [path for path in (tmp_path / "home").rglob("*") if "adapter" in path.name]

"""Bringing a Space to a Hub on loopback with huggingface_hub itself, and what the command says meanwhile."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from a_space import server_file
from upload_hub import KRUTRIM, KULLM3, TOKEN, HeldSpace, UploadHub, commit_of, deploy

from spaces_config.__main__ import NOT_PINNED, main
from spaces_config.build import built_files
from spaces_config.card import front_matter
from spaces_config.profile import PROFILES
from spaces_config.space import ROOT

SHOWN = "zero-gpu zero-a10g 1 GPU of 44.7 GiB 3.12.12 2.11.0 krutrim-1-instruct kullm3"

UNREACHED = (
    "The commit of Krutrim-1 Instruct is known to the Hub alone and the Hub cannot be reached: go online, or look at a "
    "folder without commits with `--dry-run --offline`.\n"
)


def test_a_new_space_gets_its_files_settings_and_hardware(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--out", str(tmp_path / "out"), "--yes") == 0
    space, out = hub.spaces["me/demo"], tmp_path / "out"
    sent = {file.path: (out / file.path).read_bytes() for file in built_files(out)}
    assert {path: space.files[path] for path in sent} == sent
    assert set(space.files) - set(sent) == {".gitattributes"}
    assert space.variables == {"PLAYGROUND_OPTIONS": "--models demo-krutrim,demo-kullm3"}
    assert (space.secrets, space.hardware, space.private) == ({}, {"flavor": "cpu-basic"}, False)
    assert space.commits == ["Build the playground from the profile cpu-basic"]
    said = capsys.readouterr().out
    assert "me/demo: a new Space, public" in said
    assert "secret PLAYGROUND_USERS: not in the environment; set it in the Space's settings." in said
    assert f"The Hub builds it now: {hub.url}/spaces/me/demo" in said
    assert f"bytes in {len(sent)} files; the largest:" in said


def test_settings_and_hardware_come_before_the_files(hub: UploadHub) -> None:
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--private", "--yes") == 0
    assert hub.done == [
        "POST /api/repos/create",
        "POST /api/spaces/me/demo/variables",
        "POST /api/spaces/me/demo/hardware",
        "POST /api/spaces/me/demo/commit/main",
    ]
    assert hub.spaces["me/demo"].private


def test_the_models_are_pinned_for_the_hub_and_for_the_app(hub: UploadHub) -> None:
    assert deploy(hub, "--profile", "one-large-gpu", "--repo", "me/both", "--yes") == 0
    space = hub.spaces["me/both"]
    card = front_matter(space.files["README.md"].decode())
    taken = "config.json,model.safetensors,tokenizer.json,tokenizer_config.json"
    assert card["preload_from_hub"] == [f"{name} {taken} {commit_of(name)}" for name in (KRUTRIM, KULLM3)]
    catalog = space.files["model_registry/catalog/kullm3.toml"].decode()
    assert f'revision = "{commit_of(KULLM3)}"' in catalog
    assert space.hardware == {"flavor": "l40sx1", "sleepTimeSeconds": 3600}


def test_hardware_that_costs_money_is_told_before_it_is_asked_for(
    hub: UploadHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert deploy(hub, "--profile", "one-large-gpu", "--repo", "me/both") == 1
    said = capsys.readouterr().out
    costs = "hardware: l40sx1 (1 GPU of 45 GiB, 8 vCPUs, 62 GB), which the Hub charges for while it runs"
    assert f"{costs}; sleeps after 1 h without a visitor\n" in said
    assert said.endswith("Nothing was uploaded.\n")
    assert hub.done == []


@pytest.mark.parametrize(
    ("line", "hardware", "asked", "told"),
    [
        ("", "t4-small", {"sleepTimeSeconds": 3600}, "runs; sleeps after 1 h without a visitor\n"),
        ("", "cpu-upgrade", {"sleepTimeSeconds": 3600}, "runs; sleeps after 1 h without a visitor\n"),
        ("", "cpu-basic", {}, "16 GB)\n"),
        ("sleep_time_s = 5400", "t4-small", {"sleepTimeSeconds": 5400}, "sleeps after 90 min without a visitor\n"),
        ("sleep_time_s = 301", "t4-small", {"sleepTimeSeconds": 301}, "sleeps after 301 s without a visitor\n"),
        ("sleep_time_s = -1", "t4-small", {"sleepTimeSeconds": -1}, "; never sleeps\n"),
    ],
)
def test_what_costs_money_sleeps_unless_it_is_said(
    hub: UploadHub,
    tmp_path: Path,
    line: str,
    hardware: str,
    asked: dict[str, int],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile = tmp_path / "mine.toml"
    text = (PROFILES / "cpu-basic.toml").read_text("utf-8")
    profile.write_text(text.replace("hardware =", f"{line}\nhardware ="), "utf-8")
    arguments = ["--profile", str(profile), "--hardware", hardware, "--repo", "me/demo"]
    assert deploy(hub, *arguments, "--dry-run") == 0
    assert told in capsys.readouterr().out
    assert deploy(hub, *arguments, "--yes") == 0
    assert told in capsys.readouterr().out
    assert hub.spaces["me/demo"].hardware == {"flavor": hardware, **asked}


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("", 1)])
def test_it_asks_before_it_uploads(hub: UploadHub, typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo") == code
    assert ("me/demo" in hub.spaces) is (code == 0)


def test_a_space_that_is_there_is_replaced_and_says_what_it_loses(
    hub: UploadHub, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {".gitattributes": b"", "README.md": b"old", "thesis.tex": b"mine", "playground/old.py": b"old"}
    hub.spaces["me/demo"] = HeldSpace(private=True, files=old)
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--yes") == 0
    said = capsys.readouterr().out
    assert "is there already, with 4 files; who may see it stays as it is" in said
    assert "deleted there, for it is not among these files: playground/old.py, thesis.tex" in said
    space = hub.spaces["me/demo"]
    assert {"thesis.tex", "playground/old.py"}.isdisjoint(space.files)
    assert ".gitattributes" in space.files
    assert space.private


def test_a_dry_run_writes_the_folder_and_stops(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(hub, "--profile", "zero-gpu", "--dry-run", "--out", str(tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "model_registry/demo/kullm3/model.safetensors" in said
    assert f"Nothing was uploaded. The folder is {tmp_path / 'out'}." in said
    assert (tmp_path / "out" / "app.py").is_file()
    assert hub.done == []


def test_a_dry_run_tells_the_settings_without_asking_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRUTRIM_KEY", "sk-very-secret")
    monkeypatch.delenv("PLAYGROUND_USERS", raising=False)
    servers = [
        server_file(tmp_path, "krutrim-1-instruct", key='"KRUTRIM_KEY"'),
        server_file(tmp_path, "kullm3", key='"KULLM3_KEY"'),
    ]
    given = [word for path in servers for word in ("--server", str(path))]
    with UploadHub() as gone:
        pass
    assert deploy(gone, "--profile", "remote", "--repo", "me/front", "--dry-run", "--offline", *given) == 0
    told = capsys.readouterr()
    assert "hardware: cpu-basic (" in told.out
    assert "variable PLAYGROUND_OPTIONS: --models krutrim-1-instruct,kullm3" in told.out
    assert "secret KRUTRIM_KEY: set from the environment." in told.out
    assert "secret KULLM3_KEY: not in the environment; set it in the Space's settings." in told.out
    assert "secret PLAYGROUND_USERS: not in the environment" in told.out
    assert "very-secret" not in told.out + told.err


@pytest.mark.parametrize("name", ["a/b/c", "", "me/", "/demo", "me/a demo", "me/a..b", f"me/{'x' * 97}"])
def test_what_cannot_be_the_name_of_a_space_is_told_before_anything_is_built(
    hub: UploadHub, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--profile", "cpu-basic", "--repo", name, "--dry-run", "--out", str(tmp_path / "out")]
    assert deploy(hub, *arguments) == 2
    assert f"{name!r} cannot be the name of a Space: write owner/name." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_hub_a_dry_run_says_that_nothing_is_pinned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with UploadHub() as gone:
        pass
    arguments = ["--profile", "zero-gpu", "--dry-run", "--out", str(tmp_path / "out")]
    assert deploy(gone, *arguments) == 1
    told = capsys.readouterr()
    assert told.err == UNREACHED
    assert NOT_PINNED in told.out
    assert front_matter((tmp_path / "out" / "README.md").read_text("utf-8"))["preload_from_hub"] == [KRUTRIM, KULLM3]
    assert deploy(gone, *arguments, "--offline") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert NOT_PINNED in told.out


def test_without_the_hub_nothing_is_deployed_and_a_dry_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with UploadHub() as gone:
        pass
    assert deploy(gone, "--profile", "zero-gpu", "--repo", "me/both", "--yes") == 2
    assert capsys.readouterr().err == UNREACHED


def test_a_space_that_would_not_work_is_not_uploaded(hub: UploadHub, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--profile", "one-large-gpu", "--hardware", "zero-a10g", "--repo", "me/both", "--yes"]
    assert deploy(hub, *arguments) == 1
    told = capsys.readouterr()
    assert "- requirements.txt: ZeroGPU takes torch" in told.err
    assert "This would not work as a Space." in told.out
    assert hub.done == []


def test_a_model_that_the_hub_does_not_have_is_told(hub: UploadHub, capsys: pytest.CaptureFixture[str]) -> None:
    del hub.models[KULLM3]
    assert deploy(hub, "--profile", "zero-gpu", "--repo", "me/both", "--yes") == 2
    assert f"The Hub has no public repository {KULLM3}" in capsys.readouterr().err
    assert hub.done == []


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/api/repos/create", 403, "You may not write to me/demo: check its owner, and that your token may write"),
        ("/api/spaces/me/demo/hardware", 402, "The Hub wants a means of payment before it gives this to me/demo"),
        ("/api/spaces/me/demo/commit/main", 400, "The Hub did not take me/demo"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    hub: UploadHub, path: str, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refusals[path] = status
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--yes") == 2
    assert sentence in capsys.readouterr().err


def test_who_is_not_logged_in_is_told_how_to(hub: UploadHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--yes", token="hf_of_nobody") == 2
    assert "log in with `hf auth login`" in capsys.readouterr().err


def test_a_hub_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with UploadHub() as gone:
        pass
    assert deploy(gone, "--profile", "cpu-basic", "--repo", "me/demo", "--yes") == 2
    assert "The Hub cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "cpu-basic"], "Say which Space it is to be"),
        (["--profile", "none", "--dry-run"], "There is no profile 'none'"),
        (["--profile", "cpu-basic", "--repo", "a/b/c", "--yes"], "'a/b/c' cannot be the name of a Space"),
        (["--profile", "cpu-basic", "--repo", "demo", "--dry-run"], "'demo' does not say whose Space it is to be"),
        (["--profile", "cpu-basic", "--dry-run", "--server", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_wrong_questions_are_told(
    hub: UploadHub, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(hub, *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_check_builds_and_throws_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--profile", "cpu-basic"]) == 0
    assert capsys.readouterr().out.endswith("The profile cpu-basic passes its check.\n")
    assert main(["check", "--profile", "remote"]) == 1
    assert "No server answers for kullm3" in capsys.readouterr().err


def test_the_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[5].split() == SHOWN.split()
    assert lines[3].endswith("krutrim-1-instruct kullm3, elsewhere")


def test_the_command_uses_huggingface_hubs_own_login_and_storage(hub: UploadHub) -> None:
    """As a user runs it, in a process of its own; it imports neither torch nor gradio."""
    hub.stores_weights = True
    command = [sys.executable, "-X", "importtime", "-m", "spaces_config", "deploy", "--profile", "cpu-basic"]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [*command, "--repo", "me/demo", "--yes"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights = "model_registry/demo/kullm3/model.safetensors"
    assert hub.spaces["me/demo"].files[weights] == (ROOT / weights).read_bytes()
    assert len(hub.stored) == 6
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"torch", "gradio", "transformers"}.isdisjoint(imported)
    assert TOKEN not in done.stdout

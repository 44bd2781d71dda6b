"""Secrets of a Space: from whose environment they come, what is never one, and that nobody is told what they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from a_space import server_file
from upload_hub import KRUTRIM, KULLM3, TOKEN, UploadHub, commit_of, deploy

from spaces_config.__main__ import main
from spaces_config.card import front_matter
from spaces_config.profile import PROFILES


def test_secrets_go_from_the_environment_to_the_hub_and_nowhere_else(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRUTRIM_KEY", "sk-very-secret")
    monkeypatch.setenv("PLAYGROUND_USERS", "ann:also-secret")
    servers = [
        server_file(tmp_path / "given", "krutrim-1-instruct", key='"KRUTRIM_KEY"'),
        server_file(tmp_path / "given", "kullm3", key='"KULLM3_KEY"'),
    ]
    given = [word for path in servers for word in ("--server", str(path))]
    out = tmp_path / "out"
    assert deploy(hub, "--profile", "remote", "--repo", "me/front", "--out", str(out), "--yes", *given) == 0
    space = hub.spaces["me/front"]
    assert space.secrets == {"KRUTRIM_KEY": "sk-very-secret", "PLAYGROUND_USERS": "ann:also-secret"}
    assert "--catalog servers/kullm3.toml" in space.variables["PLAYGROUND_OPTIONS"]
    said = capsys.readouterr()
    assert "secret KULLM3_KEY: not in the environment" in said.out
    assert "secret KRUTRIM_KEY: set from the environment" in said.out
    for text in (said.out, said.err, *space.variables.values(), *map(str, space.files.values())):
        assert "very-secret" not in text
        assert "also-secret" not in text
    card = front_matter(space.files["README.md"].decode())
    files = "config.json,tokenizer.json,tokenizer_config.json"
    assert card["preload_from_hub"] == [f"{name} {files} {commit_of(name)}" for name in (KRUTRIM, KULLM3)]


def test_the_login_of_who_deploys_is_no_secret_of_the_space(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    text = (PROFILES / "cpu-basic.toml").read_text("utf-8")
    profile = tmp_path / "mine.toml"
    profile.write_text(f'{text}\n[[secrets]]\nname = "HF_TOKEN"\nabout = "Reads gated models."\n', "utf-8")
    assert deploy(hub, "--profile", str(profile), "--repo", "me/demo", "--yes") == 0
    assert hub.spaces["me/demo"].secrets == {}
    said = capsys.readouterr()
    assert "secret HF_TOKEN: not taken from the environment, where it is your own login" in said.out
    assert "set the Space's own in its settings. Reads gated models." in said.out
    assert TOKEN not in said.out + said.err


def test_a_server_whose_key_would_be_the_login_is_refused(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = server_file(tmp_path, "demo-kullm3", key='"HF_TOKEN"')
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--yes", "--server", str(server)) == 2
    assert "`key`: HF_TOKEN is this machine's login at the Hub" in capsys.readouterr().err
    assert hub.done == []


@pytest.mark.parametrize("value", ["ann", "ann:s3cr3t,with-a-comma", ":s3cr3t"])
@pytest.mark.parametrize("command", ["check", "dry run", "deploy"])
def test_users_whom_the_app_would_not_take_are_told_and_not_quoted(
    hub: UploadHub, value: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYGROUND_USERS", value)
    if command == "check":
        assert main(["check", "--profile", "cpu-basic"]) == 1
    else:
        how = ["--dry-run"] if command == "dry run" else ["--yes"]
        assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", *how) == 1
    said = capsys.readouterr()
    assert "- The secret PLAYGROUND_USERS of this environment is none that the app can read. Who may open" in said.err
    assert "as name:password with commas between users" in said.err
    assert not {value, "s3cr3t", "with-a-comma"} & set(re.split(r"[\s:,'\"]", said.out + said.err))
    assert hub.done == []


def test_a_key_that_no_header_can_hold_is_told_and_not_quoted(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", "sk-one sk-two")
    server = server_file(tmp_path, "demo-kullm3")
    assert deploy(hub, "--profile", "cpu-basic", "--repo", "me/demo", "--yes", "--server", str(server)) == 1
    said = capsys.readouterr()
    assert "- The secret SERVER_KEY of this environment is none that the app can read. The key of vLLM for" in said.err
    assert "sk-one" not in said.out + said.err
    assert hub.done == []


def test_a_server_without_a_key_is_remarked_for_it_becomes_public_with_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_key, text = server_file(tmp_path, "demo-krutrim"), server_file(tmp_path, "demo-kullm3").read_text("utf-8")
    without = tmp_path / "demo-kullm3.toml"
    without.write_text(text.replace('key = "SERVER_KEY"\n', ""), "utf-8")
    given = ["--server", str(with_key), "--server", str(without)]
    assert main(["deploy", "--profile", "cpu-basic", "--dry-run", "--offline", *given]) == 0
    told = capsys.readouterr()
    assert "- vLLM for demo-kullm3 has no key, and its file with its address lies in the Space's repo" in told.out
    assert "vLLM for demo-krutrim has no key" not in told.out
    assert told.err == ""

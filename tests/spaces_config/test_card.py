"""README.md of a Space: its front matter key by key, and what it says to people."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from a_space import a_space, server_file
from packaging.specifiers import SpecifierSet

from spaces_config import front_matter
from spaces_config.card import card_data, readme
from spaces_config.card import front_matter as read
from spaces_config.pins import Pin
from spaces_config.profile import find_profile, our_profiles
from spaces_config.requirements import pins
from spaces_config.space import ROOT, Space, load_registry, our_requirements

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EVERYWHERE = {
    "title": "Krutrim and KULLM3, side by side",
    "emoji": "💬",
    "colorFrom": "indigo",
    "colorTo": "green",
    "sdk": "gradio",
    "sdk_version": "6.31.0",
    "app_file": "app.py",
    "fullWidth": True,
    "header": "mini",
    "tags": ["chat", "side-by-side", "indic", "korean"],
    "license": "apache-2.0",
    "pinned": False,
    "disable_embedding": False,
}
BOTH = ["krutrim-ai-labs/Krutrim-1-instruct", "nlpai-lab/KULLM3"]
THREE = [*BOTH, "nlpai-lab/kullm-polyglot-12.8b-v2"]
REAL = "Krutrim-1 and KULLM3 answer the same prompt, side by side"
OF_EACH = {
    "cpu-basic": {
        "python_version": "3.11",
        "short_description": "Two chat models answer the same prompt, side by side",
        "suggested_hardware": "cpu-basic",
        "startup_duration_timeout": "30m",
    },
    "zero-gpu": {
        "python_version": "3.12.12",
        "short_description": REAL,
        "suggested_hardware": "zero-a10g",
        "startup_duration_timeout": "1h",
        "models": BOTH,
        "preload_from_hub": BOTH,
    },
    "one-large-gpu": {
        "python_version": "3.11",
        "short_description": REAL,
        "suggested_hardware": "l40sx1",
        "startup_duration_timeout": "1h",
        "models": BOTH,
        "preload_from_hub": BOTH,
    },
    "several-gpus": {
        "python_version": "3.11",
        "short_description": "Krutrim-1, KULLM3 and its predecessor answer side by side",
        "suggested_hardware": "l4x4",
        "startup_duration_timeout": "2h",
        "models": THREE,
        "preload_from_hub": THREE,
    },
    "remote": {
        "python_version": "3.11",
        "short_description": REAL,
        "suggested_hardware": "cpu-basic",
        "startup_duration_timeout": "30m",
        "models": BOTH,
    },
}


@pytest.mark.parametrize("name", our_profiles())
def test_the_front_matter_key_by_key(name: str, tmp_path: Path) -> None:
    data = read(readme(a_space(name, tmp_path)))
    assert data == {**EVERYWHERE, **OF_EACH[name]}
    assert front_matter.problems(data) == []


@pytest.mark.parametrize("name", our_profiles())
def test_versions_are_texts_to_whoever_reads_yaml(name: str, tmp_path: Path) -> None:
    """3.10 without quotes would be the number 3.1."""
    _, head, _ = readme(a_space(name, tmp_path)).split("---\n", 2)
    data = yaml.safe_load(head)
    assert isinstance(data["python_version"], str)
    assert isinstance(data["sdk_version"], str)


def test_the_repository_itself_is_the_space_of_cpu_basic(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.startswith("---\n")
    assert read(text) == card_data(a_space("cpu-basic", tmp_path)).to_dict()


def test_gradios_pin_and_the_sdk_version_are_one(tmp_path: Path) -> None:
    space = a_space("cpu-basic", tmp_path)
    assert (
        read(readme(space))["sdk_version"] == pins(our_requirements())["gradio"] == pins(space.requirements)["gradio"]
    )


def test_pins_become_lines_of_repository_files_and_commit(tmp_path: Path) -> None:
    space = a_space("zero-gpu", tmp_path)
    files = ("config.json", "model.safetensors")
    pinned = tuple(Pin(pin.spec, COMMIT, files) for pin in space.pins)
    text = readme(Space(space.profile, space.registry, pinned))
    line = f"nlpai-lab/KULLM3 config.json,model.safetensors {COMMIT}"
    assert read(text)["preload_from_hub"][1] == line
    assert f"`{line}`" in text
    assert front_matter.problems(read(text)) == []


@pytest.mark.parametrize("name", our_profiles())
def test_every_licence_stands_in_the_text_with_its_source(name: str, tmp_path: Path) -> None:
    space = a_space(name, tmp_path)
    text = readme(space)
    for spec in space.models:
        assert spec.name in text
        for item in spec.licences:
            assert f"{item.text} ({item.source})" in text


def test_the_text_names_every_setting_and_no_value_of_a_secret(tmp_path: Path) -> None:
    server = server_file(tmp_path, "kullm3", key='"MY_KEY"')
    profile = find_profile("remote").model_copy(update={"models": ("kullm3",), "preload": ()})
    text = readme(Space(profile, load_registry([server]), (), (server,)))
    assert "| `PLAYGROUND_OPTIONS` | variable | `--models kullm3 " in text
    assert "--catalog servers/kullm3.toml" in text
    assert "| `MY_KEY` | secret, needed | |" in text
    assert "| `PLAYGROUND_USERS` | secret, optional | |" in text
    assert "vLLM for kullm3 answers for KULLM3" in text


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("title", " ", "'title' must be a text"),
        ("emoji", ":)", "'emoji' must be an emoji"),
        ("colorFrom", "teal", "'colorFrom' must be one of red"),
        ("sdk", "docker", "'sdk' must be one of gradio"),
        ("sdk_version", "6.31", "'sdk_version' must be a version"),
        ("sdk_version", 6.31, "'sdk_version' must be a version"),
        ("python_version", 3.11, "'python_version' must be a version"),
        ("fullWidth", "yes", "'fullWidth' must be true or false"),
        ("header", "none", "'header' must be one of mini"),
        ("short_description", "x" * 61, "'short_description' must be a text of at most 60 characters"),
        ("models", [], "'models' must be names of models"),
        ("models", ["KULLM3"], "'models' must be names of models"),
        ("tags", "chat", "'tags' must be words"),
        ("suggested_hardware", "h100", "'suggested_hardware' must be one of cpu-basic"),
        ("startup_duration_timeout", "forever", "'startup_duration_timeout' must be a time"),
        ("preload_from_hub", ["KULLM3"], "'preload_from_hub' must be repositories"),
        ("preload_from_hub", [f"a/b c {COMMIT[:7]}"], "'preload_from_hub' must be repositories"),
        ("colour", "red", "has the key 'colour', which is none of a Space's"),
    ],
)
def test_what_the_hub_would_not_take_is_told(key: str, value: object, sentence: str, tmp_path: Path) -> None:
    data = {**read(readme(a_space("cpu-basic", tmp_path))), key: value}
    (problem,) = front_matter.problems(data)
    assert sentence in problem


@pytest.mark.parametrize("key", front_matter.NEEDED)
def test_a_missing_key_is_told(key: str, tmp_path: Path) -> None:
    data = {**read(readme(a_space("cpu-basic", tmp_path)))}
    del data[key]
    assert front_matter.problems(data) == [f"README.md lacks the key {key!r}."]


@pytest.mark.parametrize(
    ("needed", "fine"), [(">=3.11", {"3.12.12"}), (">=3.10", {"3.10.13", "3.12.12"}), (">=3.13", set())]
)
def test_zero_gpu_takes_two_pythons(needed: str, fine: set[str]) -> None:
    for version in ("3.12.12", "3.10.13", "3.12", "3.11"):
        found = front_matter.python_problems({"python_version": version}, SpecifierSet(needed), zero_gpu=True)
        assert (found == []) is (version in fine)

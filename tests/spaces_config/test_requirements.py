"""What a Space installs: our pins, the platform's own packages, and that both go together."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from a_space import a_space
from packaging.requirements import Requirement

from playground.errors import SpaceError
from playground.placement.quantising import INSTALL
from spaces_config.profile import our_profiles
from spaces_config.requirements import pins, platform, quantiser, requirements, sdk_version
from spaces_config.space import ROOT, our_requirements


def test_pins_are_read_by_name_and_comments_are_none() -> None:
    assert pins("Gradio==6.1\n# torch==1.0\n\nhttpx2==2.16.2  \n-r other.txt\n") == {
        "gradio": "6.1",
        "httpx2": "2.16.2",
    }


def test_every_line_of_ours_is_a_pin_or_a_comment() -> None:
    lines = [line for line in our_requirements().splitlines() if line and not line.startswith("#")]
    assert len(pins(our_requirements())) == len(lines)


def test_only_torch_is_replaced_and_only_where_the_platform_wants_another() -> None:
    ours = our_requirements()
    assert pins(requirements(ours, None, None)) == pins(ours)
    theirs = pins(requirements(ours, "2.11.0", "bitsandbytes==0.50.2"))
    assert {name for name in theirs if theirs[name] != pins(ours).get(name)} == {"torch", "bitsandbytes"}


def test_a_repository_without_the_pins_is_refused() -> None:
    with pytest.raises(SpaceError, match="pins no gradio"):
        sdk_version("torch==2.13.0\n")
    with pytest.raises(SpaceError, match="must pin torch"):
        requirements("gradio==6.31.0\n", "2.11.0", None)


@pytest.mark.parametrize(("name", "torch"), [("zero-gpu", "2.11.0"), ("cpu-basic", "2.13.0"), ("remote", "2.13.0")])
def test_zero_gpu_alone_gets_another_torch(name: str, torch: str, tmp_path: Path) -> None:
    assert pins(a_space(name, tmp_path).requirements)["torch"] == torch


@pytest.mark.parametrize("name", our_profiles())
def test_bitsandbytes_comes_where_weights_may_be_quantised(name: str, tmp_path: Path) -> None:
    space = a_space(name, tmp_path)
    wanted = name == "one-large-gpu"
    assert ("bitsandbytes" in pins(space.requirements)) is wanted
    assert space.quantises is wanted


def test_the_quantiser_is_the_one_that_the_app_asks_for() -> None:
    assert f"pip install {quantiser(ROOT / 'pyproject.toml')}" == INSTALL


def test_our_pins_suit_the_packages_that_the_hub_adds_to_gradio() -> None:
    """`gradio[oauth,mcp]` in the same pip command: its extras' own wishes, against what we pin."""
    ours, extras = pins(our_requirements()), {"oauth", "mcp"}
    wishes = [Requirement(text) for text in importlib.metadata.requires("gradio") or ()]
    asked = [each for each in wishes if not each.marker or any(each.marker.evaluate({"extra": x}) for x in extras)]
    assert {each.name for each in asked} >= {"mcp", "authlib", "itsdangerous", "pydantic"}
    against = [str(each) for each in asked if each.name in ours and ours[each.name] not in each.specifier]
    assert against == []


def test_the_platforms_gradio_is_ours() -> None:
    assert platform(sdk_version(our_requirements()))[0] == f"gradio[oauth,mcp]=={pins(our_requirements())['gradio']}"
    assert importlib.metadata.version("gradio") == sdk_version(our_requirements())


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", our_profiles())
def test_pip_finds_versions_for_all_of_it_at_once(name: str, tmp_path: Path) -> None:
    space, path = a_space(name, tmp_path), tmp_path / "requirements.txt"
    path.write_text(space.requirements, "utf-8")
    packages = platform(sdk_version(space.requirements))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q", "-r", str(path)]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

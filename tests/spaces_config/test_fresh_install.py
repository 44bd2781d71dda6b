"""Each profile as the Hub would bring it up: its folder alone, its requirements in an environment of its own, app.py.

What cannot be had here: the Hub, GPUs and the models' weights. So the stand-ins take the models' places, ZeroGPU is
rehearsed, and the servers of `remote` are one on loopback. Python is of the profile's own minor version, and torch the
folder's, where `python3.…` of that version starts; elsewhere both are ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from a_space import built, server_file
from endpoint_client import generate
from fake_server import FakeServer, fake_server, says
from gradio_client import Client
from space_server import running_space

from spaces_config.card import front_matter
from spaces_config.profile import our_profiles
from spaces_config.requirements import pins, platform, sdk_version
from spaces_config.space import ROOT, Space, our_requirements

pytestmark = [pytest.mark.slow, pytest.mark.network]

STAND_INS = ("demo-krutrim", "demo-kullm3")
QUESTIONS = {"demo-krutrim": "नमस्ते! आप कौन हैं?", "demo-kullm3": "안녕하세요? 당신은 누구인가요?"}
KEY = "sk-of-the-test"

MINOR = "import sys; print('{}.{}'.format(*sys.version_info))"

Install = Callable[[Path], str]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """A Python with a Space's requirements and what the Hub adds to them, in one pip command; one for each text."""
    pythons: dict[tuple[str, str], str] = {}

    def installed(space: Path) -> str:
        requirements = (space / "requirements.txt").read_text("utf-8")
        base = python_like(str(front_matter((space / "README.md").read_text("utf-8"))["python_version"]))
        if base is None:
            base, requirements = sys.executable, with_our_torch(requirements)
        if (base, requirements) not in pythons:
            folder = tmp_path_factory.mktemp("environment")
            (folder / "requirements.txt").write_text(requirements, "utf-8")
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
            python = str(folder / "bin" / "python")
            packages = platform(sdk_version(requirements))
            command = [python, "-m", "pip", "install", "-q", "-r", str(folder / "requirements.txt"), *packages]
            subprocess.run(command, check=True)
            pythons[base, requirements] = python
        return pythons[base, requirements]

    return installed


def python_like(version: str) -> str | None:
    """A Python of the same minor version that starts here; this one if it is."""
    minor = ".".join(version.split(".")[:2])
    for python in filter(None, (sys.executable, shutil.which(f"python{minor}"))):
        if subprocess.run([python, "-c", MINOR], capture_output=True, text=True).stdout.strip() == minor:
            return python
    return None


def exported(folder: Path) -> Path:
    """The checkout as a push would bring it: every file that git knows, and no other."""
    told = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True)
    for path in filter(None, told.stdout.split("\0")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    return folder


def with_our_torch(requirements: str) -> str:
    ours, theirs = pins(our_requirements())["torch"], pins(requirements)["torch"]
    return requirements.replace(f"torch=={theirs}", f"torch=={ours}")


def rehearsed(space: Space, more: str = "") -> dict[str, str]:
    """The Space's environment, with the stand-ins for its models, and for its servers those of `more`."""
    environment = space.environment()
    options = environment["PLAYGROUND_OPTIONS"].split(" --catalog ")[0]
    options = options.replace(",".join(space.profile.models), ",".join(STAND_INS))
    if environment.pop("SPACES_ZERO_GPU", ""):
        options += " --zero-gpu rehearse"
    return {**environment, "PLAYGROUND_OPTIONS": options + more}


def elsewhere(server: FakeServer, folder: Path) -> str:
    """Options that name it as the server of both stand-ins."""
    url = f'"{server.url}"'
    return "".join(f" --catalog {server_file(folder, model, url=url)}" for model in STAND_INS)


@pytest.mark.parametrize("name", our_profiles())
def test_the_folder_installs_starts_and_answers(name: str, install: Install, tmp_path: Path) -> None:
    space, folder = built(name, tmp_path)
    python = install(folder)
    with ExitStack() as stack:
        environment = rehearsed(space)
        if space.profile.elsewhere:
            server = stack.enter_context(fake_server(says("멀리서 ", "답합니다.")))
            environment = {**rehearsed(space, elsewhere(server, tmp_path / "loopback")), "SERVER_KEY": KEY}
        address = stack.enter_context(running_space(folder, environment, python))
        client = Client(address, verbose=False, analytics_enabled=False)
        for model, question in QUESTIONS.items():
            messages = [{"role": "user", "content": question}]
            last = generate(client, model, messages, {"temperature": 0, "max_new_tokens": 60}, None)[-1]
            assert last["finish_reason"] == "stop"
            assert last["text"]
            if space.profile.elsewhere:
                assert last["text"] == "멀리서 답합니다."
                assert last["server"]
                assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"


def test_the_repository_pushed_as_it_is_starts_and_answers(install: Install, tmp_path: Path) -> None:
    """Nobody has set a variable: the app finds out by itself that strangers come, and what a CPU can hold."""
    folder = exported(tmp_path / "repository")
    python = install(folder)
    with running_space(folder, {"SPACE_ID": "me/space", "SPACE_HOST": "me-space.hf.space"}, python) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        messages = [{"role": "user", "content": QUESTIONS["demo-kullm3"]}]
        assert generate(client, "demo-kullm3", messages, {"temperature": 0}, None)[-1]["finish_reason"] == "stop"
        with pytest.raises(Exception, match="1,024"):
            generate(client, "demo-kullm3", messages, {"max_new_tokens": 1_025}, None)

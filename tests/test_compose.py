"""The compose file: what it starts fits together, and the app understands what it is given.

No container is built here.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_registry.catalog_file import read_catalog_file
from model_registry.registry import Registry
from model_registry.spec import ServerSpec
from playground.command_line import parser

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = {"krutrim-server": "krutrim", "kullm3-server": "kullm3"}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ServerSpec, str]:
    """A server file of the playground, and the name of the service that it speaks of."""
    path = tmp_path / "server.toml"
    path.write_text(COMPOSE["configs"][request.param]["content"], encoding="utf-8")
    spec = read_catalog_file(path)
    assert isinstance(spec, ServerSpec)
    return spec, SERVERS[request.param]


def test_each_server_file_names_a_service_its_model_and_its_key(server: tuple[ServerSpec, str]) -> None:
    spec, name = server
    service = SERVICES[name]
    assert spec.url == f"http://{name}:8000/v1"
    assert f"--served-model-name {spec.models[0]} " in service["command"]
    assert Registry.load().get(spec.serves).context_length == 4096
    assert "--max-model-len 4096" in service["command"]
    written = f"${{{spec.key}:?write it into .env}}"
    assert service["environment"]["VLLM_API_KEY"] == written
    assert SERVICES["playground"]["environment"][spec.key] == written


def test_each_server_has_a_gpu_of_its_own_and_is_waited_for() -> None:
    seen = []
    for name in SERVERS.values():
        reserved = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert [device["capabilities"] for device in reserved] == [["gpu"]]
        seen += [gpu for device in reserved for gpu in device["device_ids"]]
        assert "/health" in SERVICES[name]["healthcheck"]["test"][-1]
        assert SERVICES["playground"]["depends_on"][name] == {"condition": "service_healthy"}
    assert len(set(seen)) == len(seen) == 2


def test_the_playground_understands_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, script, *arguments = SERVICES["playground"]["command"].split()
    assert (program, script) == ("python", "app.py")
    targets = [config["target"] for config in SERVICES["playground"]["configs"]]
    assert [value for flag, value in pairwise(arguments) if flag == "--catalog"] == targets
    here = [str(tmp_path / Path(word).name) if word in targets else word for word in arguments]
    for target in targets:
        (tmp_path / Path(target).name).touch()
    options = parser().parse_args(here)
    assert options.models == ("krutrim-1-instruct", "kullm3")
    assert str(options.port) in SERVICES["playground"]["ports"][0]


def test_the_folder_for_vllm_is_made_where_vllm_looks_for_it() -> None:
    script = SERVICES["krutrim-folder"]["command"][-1]
    assert "python3 -m model_registry export krutrim-1-instruct krutrim-1-instruct" in script
    assert f"hf download {Registry.load().get('krutrim').weights.hub}" in script
    assert "vllm serve /data/krutrim-1-instruct " in SERVICES["krutrim"]["command"]
    assert SERVICES["krutrim"]["volumes"] == SERVICES["krutrim-folder"]["volumes"]


def test_what_the_images_copy_is_there_and_is_all_that_they_need() -> None:
    for name in ("krutrim", "playground"):
        lines = SERVICES[name]["build"]["dockerfile_inline"].splitlines()
        copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
        assert all((ROOT / word).exists() for word in copied)
        assert {"app.py", "model_registry", "playground", "requirements.txt"} <= copied
    pinned = re.search(r"^torch==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f"torch=={pinned[1]}+cpu" in SERVICES["playground"]["build"]["dockerfile_inline"]

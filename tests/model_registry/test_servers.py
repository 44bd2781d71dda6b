"""Servers in the catalog: what a file says, which models they answer for, and how a wrong file is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from catalog_text import rewrite
from huggingface_hub import _oidc
from huggingface_hub.utils import _auth

from model_registry.registry import Registry
from model_registry.spec import HUB_LOGINS
from playground.errors import CatalogError, EngineError, UnknownModelError

USER_FILE = """\
id = "our-vllm"
name = "vLLM in the cellar"
serves = "kullm3"
url = "http://10.0.0.7:8000/v1"
models = ["nlpai-lab/KULLM3", "casual"]
key = "CELLAR_KEY"
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "our-vllm.toml"
    path.write_text(USER_FILE, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CatalogError) as error:
        Registry.load(path)
    return str(error.value)


def test_a_users_server_is_read(user_file: Path) -> None:
    server = Registry.load(user_file).server("OUR-vLLM ")
    assert server.name == "vLLM in the cellar"
    assert server.url == "http://10.0.0.7:8000/v1"
    assert server.models == ("nlpai-lab/KULLM3", "casual")
    assert server.key == "CELLAR_KEY"
    assert server.messages_only is False


def test_it_answers_for_its_model_and_for_no_other(user_file: Path) -> None:
    registry = Registry.load(user_file)
    assert [server.id for server in registry.servers("kullm3")] == ["our-vllm"]
    assert [server.id for server in registry.servers("nlpai-lab/KULLM3")] == ["our-vllm"]
    assert registry.servers("krutrim-1-instruct") == ()
    assert [server.id for server in registry.servers()] == ["our-vllm"]
    with pytest.raises(UnknownModelError):
        registry.servers("kulm3")


def test_its_model_may_be_named_by_an_alias(user_file: Path) -> None:
    registry = Registry.load(rewrite(user_file, 'serves = "kullm3"', 'serves = "nlpai-lab/KULLM3"'))
    assert [server.id for server in registry.servers("kullm3")] == ["our-vllm"]


def test_what_may_be_left_out_is_a_server_without_a_key(user_file: Path) -> None:
    server = Registry.load(rewrite(user_file, 'key = "CELLAR_KEY"\n', "")).server("our-vllm")
    assert server.key is None


def test_ours_has_none_and_says_so() -> None:
    registry = Registry.load()
    assert registry.servers() == ()
    with pytest.raises(EngineError, match="There are none"):
        registry.server("our-vllm")


def test_a_near_miss_is_named(user_file: Path) -> None:
    with pytest.raises(EngineError, match="Did you mean our-vllm"):
        Registry.load(user_file).server("our-vlm")


WRONG = {
    'url = "http://10.0.0.7:8000/v1"': {
        'url = "10.0.0.7:8000/v1"': "url",
        'url = "ftp://10.0.0.7/v1"': "url",
        'url = "http://me:secret@10.0.0.7/v1"': "url",
        'url = "http://10.0.0.7/v1?key=secret"': "url",
        'url = "http://10.0.0.7/v 1"': "url",
        'url = "http://10.0.0.7:99999/v1"': "url",
        'url = "http://10.0.0.7:http/v1"': "url",
        'url = "http://10.0.0.7:0/v1"': "url",
        'url = "http://:8000/v1"': "url",
        'url = "http://[10.0.0.7/v1"': "url",
    },
    'models = ["nlpai-lab/KULLM3", "casual"]': {"models = []": "models", 'models = "m"': "models"},
    'key = "CELLAR_KEY"': {'key = "sk-12345"': "key", 'key = "cellar key"': "key", 'token = "X"': "token"},
    'serves = "kullm3"': {"serves = 3": "serves"},
}


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, others in WRONG.items() for new in others])
def test_a_wrong_key_is_told_with_file_and_line_and_no_secret_quoted(user_file: Path, old: str, new: str) -> None:
    line = USER_FILE.splitlines().index(old) + 1
    told = refusal(rewrite(user_file, old, new))
    assert f"{user_file}: line {line}: " in told
    assert f"`{WRONG[old][new]}`" in told
    assert "secret" not in told
    assert "sk-12345" not in told


@pytest.mark.parametrize("name", HUB_LOGINS)
def test_the_machines_login_at_the_hub_is_no_servers_key(user_file: Path, name: str) -> None:
    told = refusal(rewrite(user_file, "CELLAR_KEY", name))
    assert f"{user_file}: line 6: `key`: {name} is this machine's login at the Hub, which goes to no server" in told
    assert "put the server's key into a variable of another name" in told


def test_those_are_all_that_huggingface_hub_logs_in_with() -> None:
    sources = "".join(Path(str(module.__file__)).read_text("utf-8") for module in (_auth, _oidc))
    assert sorted(set(re.findall(r"""environ\.get\(["'](\w*TOKEN)["']\)""", sources))) == sorted(HUB_LOGINS)


def test_an_impossible_port_is_told_with_what_is_possible(user_file: Path) -> None:
    assert "`url`: port out of range 0-65535." in refusal(rewrite(user_file, ":8000", ":99999"))


def test_a_missing_key_is_told(user_file: Path) -> None:
    assert "the key `models` is missing" in refusal(rewrite(user_file, 'models = ["nlpai-lab/KULLM3", "casual"]\n', ""))


def test_a_server_of_no_model_of_the_catalog_is_refused_with_near_misses(user_file: Path) -> None:
    told = refusal(rewrite(user_file, '"kullm3"', '"kullm33"'))
    assert "our-vllm" in told
    assert "Did you mean kullm3" in told


def test_two_servers_need_two_ids(user_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text(USER_FILE, encoding="utf-8")
    with pytest.raises(CatalogError, match="belongs to two servers"):
        Registry.load(user_file, copy)

"""Adapters in the catalog: ours, a user's, which models they are for, and how a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_text import rewrite

from model_registry.__main__ import main
from model_registry.registry import CATALOG, Registry
from model_registry.spec import ADAPTER_FACTS
from playground.errors import AdapterError, CatalogError, UnknownModelError

USER_FILE = """\
id = "my-adapter"
name = "My Adapter"
base_models = ["kullm3"]
languages = ["ko"]
about = "Answers in rhymes."

[weights]
hub = "me/my-adapter"

[[licences]]
text = "MIT"
source = "me"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "my-adapter.toml"
    path.write_text(USER_FILE, encoding="utf-8")
    return path


def test_ours_are_for_the_stand_ins_and_say_so(registry: Registry) -> None:
    assert {"krutrim-formal", "krutrim-casual"} <= {adapter.id for adapter in registry.adapters("demo-krutrim")}
    assert {adapter.id for adapter in registry.adapters()} == {p.stem for p in (CATALOG / "adapters").glob("*.toml")}
    for adapter in registry.adapters():
        assert all(registry.get(base).is_stand_in for base in adapter.base_models)
        assert "stand-in" in adapter.name
        assert "stand-in" in adapter.about
        assert adapter.weights.path is not None
        assert {path.name for path in adapter.weights.path.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }


def test_every_fact_of_ours_has_a_source(registry: Registry) -> None:
    for adapter in registry.adapters():
        assert all(adapter.sources[fact].strip() for fact in ADAPTER_FACTS), adapter.id
        assert all(item.source for item in (*adapter.licences, *adapter.limits)), adapter.id


def test_a_model_has_its_own_adapters_only(registry: Registry) -> None:
    assert registry.adapters("kullm3") == ()
    with pytest.raises(UnknownModelError, match=r"Did you mean .*kullm3"):
        registry.adapters("kulm3")


@pytest.mark.parametrize("name", ["krutrim-formal", "Krutrim-Formal", " krutrim-formal "])
def test_an_adapter_is_found_by_its_id(registry: Registry, name: str) -> None:
    assert registry.adapter(name).id == "krutrim-formal"


def test_an_unknown_adapter_names_near_misses(registry: Registry) -> None:
    with pytest.raises(AdapterError, match="Did you mean krutrim-formal"):
        registry.adapter("krutrim-frmal")
    with pytest.raises(AdapterError, match="There are: krutrim-casual"):
        registry.adapter("qqqqqqqqq")


def test_a_user_adds_an_adapter(user_file: Path) -> None:
    registry = Registry.load(user_file)
    (adapter,) = registry.adapters("nlpai-lab/KULLM3")
    assert (adapter.id, adapter.weights.hub, adapter.weights.revision) == ("my-adapter", "me/my-adapter", "main")
    assert adapter.sources == dict.fromkeys(ADAPTER_FACTS, "user's catalog")


def test_a_users_folder_is_relative_to_the_file(user_file: Path) -> None:
    rewrite(user_file, 'hub = "me/my-adapter"', 'path = "rhymes"')
    assert Registry.load(user_file).adapter("my-adapter").weights.path == user_file.parent / "rhymes"


def test_a_base_may_be_named_by_its_alias_and_need_not_be_the_only_one(user_file: Path) -> None:
    rewrite(user_file, '["kullm3"]', '["nlpai-lab/KULLM3", "demo-kullm3"]')
    registry = Registry.load(user_file)
    for model in ("kullm3", "demo-kullm3"):
        assert "my-adapter" in {adapter.id for adapter in registry.adapters(model)}


def test_a_users_file_replaces_an_adapter_of_ours_and_no_model(user_file: Path) -> None:
    registry = Registry.load(rewrite(user_file, 'id = "my-adapter"', 'id = "krutrim-formal"'))
    assert registry.adapter("krutrim-formal").name == "My Adapter"
    registry = Registry.load(rewrite(user_file, 'id = "krutrim-formal"', 'id = "demo-krutrim"'))
    assert registry.get("demo-krutrim").is_stand_in


def test_two_adapters_cannot_share_an_id(user_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(USER_FILE, encoding="utf-8")
    with pytest.raises(CatalogError, match="'my-adapter' belongs to two adapters"):
        Registry.load(user_file, other)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('["kullm3"]', '["kulm3"]', r"'my-adapter' names an unknown base model\. .*Did you mean kullm3"),
        ('about = "', 'abut = "', r"my-adapter\.toml: .*line 5: unknown key `abut`"),
        ('["kullm3"]', "[]", r"my-adapter\.toml: line 3: `base_models`: .*at least 1"),
        ('["kullm3"]', '"kullm3"', r"my-adapter\.toml: line 3: `base_models`: .*tuple"),
        ('hub = "me/my-adapter"', 'hub = "me/my-adapter"\npath = "x"', r"line 7: `weights`: give either `hub` or"),
        ('hub = "me/my-adapter"', 'revision = "v1"', r"line 7: `weights`: give either `hub` or `path`"),
        ('hub = "me/my-adapter"', 'hub = "me/my-adapter"\nbytes = 3', r"line 9: unknown key `weights.bytes`"),
        ('id = "my-adapter"', 'id = "me/my-adapter"', r"line 1: `id`: .*pattern"),
        ('id = "my-adapter"', 'id = "none"', r"line 1: `id`: no adapter can be called `none`"),
        ('source = "me"', 'sauce = "me"', r"line 12: unknown key `licences.0.sauce`"),
        ('about = "', 'kind = "chat"\nabout = "', r"line 5: unknown key `kind`"),
        ("[weights]", '[sources]\nr = "me"\n\n[weights]', r"names facts that the file does not state: r\b"),
    ],
)
def test_a_wrong_file_is_told_with_file_key_and_line(user_file: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(CatalogError, match=says):
        Registry.load(rewrite(user_file, old, new))


def test_an_adapter_of_ours_without_a_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.toml").write_text(USER_FILE + '\n[sources]\nbase_models = "me"\nlanguages = "me"\nweights = "me"\n')
    monkeypatch.setattr("model_registry.registry.CATALOG", tmp_path)
    with pytest.raises(CatalogError, match="does not say where these come from: about"):
        Registry.load()


def test_the_table_and_show_know_adapters(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--catalog", str(user_file)]) == 0
    printed = capsys.readouterr().out
    assert "\nmy-adapter " in printed
    assert "\nkrutrim-formal " in printed
    assert main(["--catalog", str(user_file), "show", "my-adapter"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("my-adapter: My Adapter (adapter)\n  base_models: kullm3  [user's catalog]\n")
    assert "licence: MIT  [me]" in printed

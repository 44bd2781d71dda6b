"""The catalog: what ours says, what a user's file may say, and how a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_text import rewrite

from model_registry.__main__ import main
from model_registry.registry import CATALOG, Registry
from model_registry.spec import FACTS
from playground.errors import CatalogError, UnknownModelError

OURS = {
    "demo-krutrim",
    "demo-kullm3",
    "krutrim-1-base",
    "krutrim-1-instruct",
    "kullm-polyglot-12.8b",
    "kullm-polyglot-12.8b-v2",
    "kullm-polyglot-5.8b-v2",
    "kullm3",
    "smollm2-135m-instruct",
}

USER_FILE = """\
id = "my-model"
name = "My Model"
family = "Mine"
kind = "chat"
parameters = 1_000_000
dtype = "float32"
context_length = 512
languages = ["en"]

[weights]
path = "weights"
bytes = 4_000_000

[dimensions]
layers = 2
hidden_size = 64
heads = 4
kv_heads = 2
head_dim = 16
vocab_size = 1000
tied_embeddings = false

[prompt]
template_file = "mine.jinja"
template_source = "user"
add_special_tokens = false

[[licences]]
text = "MIT"
source = "me"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    path = tmp_path / "my-model.toml"
    path.write_text(USER_FILE, encoding="utf-8")
    return path


def test_our_catalog_is_complete(registry: Registry) -> None:
    assert {spec.id for spec in registry} == OURS
    assert {path.stem for path in CATALOG.glob("*.toml")} == OURS


def test_every_fact_of_ours_has_a_source(registry: Registry) -> None:
    for spec in registry:
        assert all(spec.sources[fact].strip() for fact in FACTS if getattr(spec, fact) is not None), spec.id
        assert all(item.source for item in (*spec.licences, *spec.limits)), spec.id


def test_the_figures_of_the_two_models(registry: Registry) -> None:
    krutrim, kullm = registry.get("krutrim-1-instruct"), registry.get("kullm3")
    assert (krutrim.dtype, krutrim.context_length, krutrim.dimensions.vocab_size) == ("bfloat16", 4096, 70400)
    assert (kullm.dtype, kullm.context_length, kullm.dimensions.vocab_size) == ("float16", 4096, 32000)
    assert krutrim.dimensions.kv_bytes_per_token() == 2 * 32 * 8 * 112 * 2
    assert kullm.dimensions.kv_bytes_per_token() == 2 * 48 * 8 * 128 * 2
    assert (krutrim.dimensions.tied_embeddings, kullm.dimensions.tied_embeddings) == (True, False)
    assert krutrim.quantisations == kullm.quantisations == ("8-bit", "4-bit")
    assert {item.text for item in kullm.licences} == {"CC BY-NC 4.0", "Apache-2.0"}


def test_special_tokens_on_top_are_a_fact_of_each_model(registry: Registry) -> None:
    assert registry.get("krutrim-1-instruct").prompt.add_special_tokens
    assert not registry.get("kullm3").prompt.add_special_tokens


def test_stand_ins_stand_in_for_models_of_the_catalog(registry: Registry) -> None:
    stand_ins = {spec.id: spec.stand_in_for for spec in registry if spec.is_stand_in}
    assert stand_ins == {"demo-krutrim": "krutrim-1-instruct", "demo-kullm3": "kullm3"}


@pytest.mark.parametrize("name", ["kullm3", "KULLM3", "nlpai-lab/KULLM3", " kullm3 "])
def test_ids_and_aliases_find_the_model(registry: Registry, name: str) -> None:
    assert registry.get(name).id == "kullm3"


@pytest.mark.parametrize(("typed", "meant"), [("kulm3", "kullm3"), ("krutrim-instruct", "krutrim-1-instruct")])
def test_an_unknown_id_names_near_misses(registry: Registry, typed: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"Did you mean .*{meant}"):
        registry.get(typed)


def test_an_id_like_no_other_lists_what_there_is(registry: Registry) -> None:
    with pytest.raises(UnknownModelError, match=r"There are: .*kullm3"):
        registry.get("qqqqqqqq")


def test_a_user_adds_a_model(user_file: Path) -> None:
    spec = Registry.load(user_file).get("my-model")
    assert spec.prompt.template == "{{ messages[0].content }}"
    assert spec.weights.path == user_file.parent / "weights"
    assert spec.sources["parameters"] == "user's catalog"


def test_a_users_file_replaces_a_model_of_ours(user_file: Path) -> None:
    registry = Registry.load(rewrite(user_file, 'id = "my-model"', 'id = "kullm3"'))
    assert registry.get("kullm3").name == "My Model"
    assert len([spec for spec in registry if spec.id == "kullm3"]) == 1


def test_two_models_cannot_share_a_name(user_file: Path) -> None:
    rewrite(user_file, 'name = "My Model"', 'name = "My Model"\naliases = ["krutrim"]')
    with pytest.raises(CatalogError, match="'krutrim' belongs to two models"):
        Registry.load(user_file)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('dtype = "float32"', 'dtyp = "float32"', r"line 6: unknown key `dtyp`"),
        ("kv_heads = 2", "kv_head = 2", r"line 18: unknown key `dimensions.kv_head`"),
        ("layers = 2\n", "", r"line 14: the key `dimensions.layers` is missing"),
        ("layers = 2", "layers = -2", r"line 15: `dimensions.layers`: .*greater than 0"),
        ("tied_embeddings = false\n", "", r"line 14: the key `dimensions.tied_embeddings` is missing"),
        ("tied_embeddings = false", "tied_embeddings = 0", r"line 21: `dimensions.tied_embeddings`: .*boolean"),
        ('dtype = "float32"', 'dtype = "float32"\nquantisations = ["2-bit"]', r"line 7: `quantisations.0`: .*'8-bit'"),
        ('source = "me"', 'sauce = "me"', r"line 30: unknown key `licences.0.sauce`"),
        ('source = "me"', 'source = "me"\n\n[[licences]]\ntext = "X"\nsauce = "you"', r"line 34: .*`licences.1.sauce`"),
        ('source = "me"', 'source = "me"\n\n[[licences]]\ntext = "X"', r"line 32: the key `licences.1.source` is miss"),
        ("[weights]", 'sources = "me"\n\n[weights]', r"line 10: `sources`: .*dictionary"),
        ("layers = 2", "layers = true", r"line 15: `dimensions.layers`: .*integer"),
        ("layers = 2", "layers = " + "9" * 5000, r"not valid TOML: .*digits"),
        ("layers = 2", "layers = " + "[" * 5000, r"not valid TOML"),
        ('path = "weights"', 'path = "weights"\nhub = "a/b"', r"line 10: `weights`: give either `hub` or `path`"),
        ('dtype = "float32"', 'dtype = "float8"', r"line 6: `dtype`"),
        ('id = "my-model"', 'id = "my-model', r"not valid TOML: .*line 1"),
        ("mine.jinja", "other.jinja", r"chat template .*other.jinja cannot be read"),
        ('template_file = "mine.jinja"\n', "", r'`prompt`: template_source "user" needs `template`'),
        ("[weights]", '[sources]\nlicences = "me"\n\n[weights]', r"names facts that the file does not state: licences"),
    ],
)
def test_a_wrong_file_is_told_with_file_key_and_line(user_file: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(CatalogError, match=says) as caught:
        Registry.load(rewrite(user_file, old, new))
    assert str(user_file.parent) in str(caught.value)


def test_a_byte_order_mark_is_no_error(user_file: Path) -> None:
    user_file.write_bytes(b"\xef\xbb\xbf" + user_file.read_bytes())
    assert Registry.load(user_file).get("my-model").name == "My Model"


def test_a_file_that_is_no_text_is_a_sentence(user_file: Path) -> None:
    user_file.write_bytes(b"id = '\xff'")
    with pytest.raises(CatalogError, match=r"my-model\.toml cannot be read"):
        Registry.load(user_file)


def test_a_file_of_ours_without_a_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CATALOG / "smollm2-135m-instruct.toml").read_text(encoding="utf-8")
    (tmp_path / "x.toml").write_text(text.replace('dtype = "hub"\n', ""), encoding="utf-8")
    monkeypatch.setattr("model_registry.registry.CATALOG", tmp_path)
    with pytest.raises(CatalogError, match="does not say where these come from: dtype"):
        Registry.load()


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nowhere\.toml cannot be read"):
        Registry.load(tmp_path / "nowhere.toml")


def test_the_table_lists_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{model_id} " in printed for model_id in OURS)
    assert "CC BY-NC 4.0 / Apache-2.0" in printed


def test_show_prints_every_fact_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "nlpai-lab/KULLM3"]) == 0
    printed = capsys.readouterr().out
    assert "context_length: 4096  [config of upstage/SOLAR-10.7B]" in printed
    assert "licence: Apache-2.0  [hub]" in printed


def test_the_command_line_tells_errors_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "kulm3"]) == 2
    assert "Did you mean kullm3" in capsys.readouterr().err


def test_the_command_line_takes_a_users_file(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--catalog", str(user_file), "show", "my-model"]) == 0
    assert "[user's catalog]" in capsys.readouterr().out

"""The library: which adapters can be chosen for a model, and what a text names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from library_room import COMMIT, SENTENCE_SIZE, Make, refusal
from local_hub import LocalHub, commit_of
from tiny_adapters import CONFIG, WEIGHTS, edit_config

from model_registry.registry import Registry
from model_registry.spec import AdapterSpec, ModelSpec, Place, Statement
from playground.adapters.fetch import AdapterStore
from playground.adapters.files import shown
from playground.adapters.known_layers import KnownLayers
from playground.adapters.library import AdapterLibrary
from playground.errors import AdapterError, DownloadError

# What can be chosen


def test_the_catalogs_adapters_come_first_and_for_their_model_only(
    make: Make, registry: Registry, krutrim_spec: ModelSpec, formal: Path
) -> None:
    library = make(formal.parent)
    *ours, found = library.choices(krutrim_spec)
    assert [choice.id for choice in ours] == [adapter.id for adapter in registry.adapters("demo-krutrim")]
    assert {"आप" in choice.about for choice in ours} == {True, False}
    assert (found.id, found.name, found.about) == (str(formal), "formal", "It was trained on 'demo-krutrim'.")
    assert str(formal) not in {choice.id for choice in library.choices(registry.get("demo-kullm3"))}


def test_a_folder_may_be_an_adapter_itself_and_is_listed_once(
    make: Make, krutrim_spec: ModelSpec, registry: Registry, formal: Path
) -> None:
    catalogued = registry.adapter("krutrim-formal").weights.path
    assert catalogued is not None
    library = make(formal, formal.parent / "formal", catalogued.resolve().parent)
    ids = [choice.id for choice in library.choices(krutrim_spec)]
    assert [place for place in ids if "/" in place] == [str(formal)]


@pytest.mark.parametrize(
    ("base", "models"),
    [
        ("demo-krutrim", ["demo-krutrim"]),
        ("Krutrim-AI-Labs/Krutrim-1-instruct", ["krutrim-1-instruct"]),
        ("nlpai-lab/KULLM3/", ["kullm3"]),
        ("krutrim", ["demo-krutrim", "krutrim-1-instruct"]),  # a folder's name, and an alias
        ("somebody/elses-model", ["demo-krutrim", "krutrim-1-instruct", "kullm3", "demo-kullm3"]),
        (None, ["demo-krutrim", "krutrim-1-instruct", "kullm3", "demo-kullm3"]),
        (7, ["demo-krutrim", "krutrim-1-instruct", "kullm3", "demo-kullm3"]),
    ],
)
def test_an_adapter_that_names_another_model_of_the_catalog_is_not_listed(
    make: Make, registry: Registry, formal: Path, base: object, models: list[str]
) -> None:
    edit_config(formal, base_model_name_or_path=base)
    library = make(formal)
    for model in ("demo-krutrim", "krutrim-1-instruct", "kullm3", "demo-kullm3"):
        listed = str(formal) in {choice.id for choice in library.choices(registry.get(model))}
        assert listed == (model in models), model


def test_the_place_of_a_model_is_one_of_its_names(make: Make, registry: Registry, formal: Path) -> None:
    place = registry.get("demo-krutrim").weights.path
    assert place is not None
    edit_config(formal, base_model_name_or_path=str(place.resolve()))
    assert str(formal) in {choice.id for choice in make(formal).choices(registry.get("demo-krutrim"))}
    assert str(formal) not in {choice.id for choice in make(formal).choices(registry.get("demo-kullm3"))}


def test_what_cannot_be_read_is_listed_and_choosing_it_says_why(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path
) -> None:
    contents = {"nested": b"[" * 100_000, "large": b" " * (1 << 20) + b"{}", "none": b"", "list": b"[]"}
    for name, content in contents.items():
        shutil.copytree(formal, formal.parent / name)
        (formal.parent / name / CONFIG).write_bytes(content)
    (formal.parent / "linked").mkdir()
    (formal.parent / "linked" / CONFIG).symlink_to("/etc/passwd")
    (formal.parent / "pipe").mkdir()
    os.mkfifo(formal.parent / "pipe" / CONFIG)
    (formal.parent / "no-adapter").mkdir()
    (formal.parent / "a-file").write_text("")
    library = make(formal.parent)
    listed = {choice.name: choice for choice in library.choices(krutrim_spec) if "/" in choice.id}
    assert set(listed) == {*contents, "linked", "pipe", "formal"}
    for name in (*contents, "linked", "pipe"):
        assert listed[name].about == f"Its {CONFIG} cannot be read."
        assert CONFIG in refusal(library, krutrim_spec, listed[name].id)


def test_a_folder_that_no_menu_can_list_is_left_out_and_told_in_the_log(
    make: Make, krutrim_spec: ModelSpec, formal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [b"bad\xff", "up\u202eside".encode(), b"two\nlines", b"space "]
    for name in odd:
        shutil.copytree(os.fsencode(formal), os.path.join(os.fsencode(formal.parent), name))
    joined = shutil.copytree(formal, formal.with_name("क्\u200dष"))
    names = [choice.name for choice in make(formal.parent).choices(krutrim_spec)]
    assert names[-2:] == [formal.name, joined.name]
    told = [record.getMessage() for record in caplog.records if "no menu can list it" in record.getMessage()]
    assert len(told) == len(odd)
    assert any("bad\\udcff" in sentence for sentence in told)


def test_a_listed_folder_that_is_gone_lists_nothing(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make(formal.parent)
    shutil.rmtree(formal.parent)
    assert all("/" not in choice.id for choice in library.choices(krutrim_spec))


# What a text names


def test_an_adapter_of_the_catalog_is_checked(make: Make, registry: Registry, krutrim_spec: ModelSpec) -> None:
    checked = make().check(krutrim_spec, " krutrim-formal ")
    folder = registry.adapter("krutrim-formal").weights.path
    assert folder is not None
    assert (checked.id, checked.name) == ("krutrim-formal", "Formal Hindi (stand-in)")
    assert (checked.model_id, checked.folder) == ("demo-krutrim", folder.resolve())
    assert checked.revision == f"sha256:{checked.facts.fingerprint}"
    assert checked.facts.warnings == ()
    assert checked.use(0.5).model_dump() == {"id": checked.id, "revision": checked.revision, "scale": 0.5}


def test_a_folder_is_named_as_shells_name_them(
    make: Make, krutrim_spec: ModelSpec, formal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(formal.parent)
    monkeypatch.setenv("HOME", str(formal.parent))
    library = make()
    for text in (str(formal), "./formal", "~/formal", f"{formal}/"):
        checked = library.check(krutrim_spec, text)
        assert (checked.id, checked.name, checked.folder) == (str(formal), "formal", formal), text
    monkeypatch.chdir(formal)
    assert library.check(krutrim_spec, ".").id == str(formal)


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("org/adapter", "main"),
        ("org/adapter@v1", "v1"),
        (f"org/adapter@{COMMIT}", COMMIT),
        ("https://huggingface.co/org/adapter", "main"),
        (" https://huggingface.co/org/adapter/ ", "main"),
        ("http://www.huggingface.co/org/adapter?library=peft#top", "main"),
        ("huggingface.co/org/adapter/tree/v1", "v1"),
        ("https://hf.co/org/adapter/commit/" + COMMIT, COMMIT),
        ("HTTPS://HuggingFace.co/org/adapter/tree/v1/", "v1"),
    ],
)
def test_an_adapter_of_the_hub_is_named_by_its_id_or_its_page(
    make: Make, krutrim_spec: ModelSpec, formal: Path, text: str, revision: str
) -> None:
    with LocalHub({"org/adapter": {"main": formal, "v1": formal}}) as hub:
        checked = make(hub=hub.url).check(krutrim_spec, text)
    assert (checked.id, checked.name, checked.revision) == ("org/adapter", "org/adapter", commit_of(revision))
    assert (checked.folder / WEIGHTS).read_bytes() == (formal / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("krutrim-frmal", "Did you mean krutrim-formal"),
        ("krutrim-frmal", "a Hub id looks like owner/name"),
        ("", "There is no adapter ''"),
        ("C:", "There is no adapter 'C:'"),
        ("a/b/c", "'a/b/c' is no Hub id"),
        ("org/adapter@", "no public repository org/adapter"),
        ("org/adapter@../x", "is no revision"),
        ("org/ada pter", "is no Hub id"),
        ("org/\0", "is no Hub id"),
        ("https://example.com/org/adapter", "is no address on huggingface.co"),
        ("https://huggingface.co@example.com/org/adapter", "is no address on huggingface.co"),
        ("https://huggingface.co:8080/org/adapter", "is no address on huggingface.co"),
        ("file:///etc/passwd", "is no address on huggingface.co"),
        ("https://[half/org/adapter", "is no address"),
        ("https://huggingface.co", "is no Hub id"),
        ("https://huggingface.co/org", "is no Hub id"),
        ("https://huggingface.co/datasets/org/adapter", "is not the page of a repository"),
        ("https://huggingface.co/org/adapter/tree/main/folder", "is not the page of a repository"),
        ("https://huggingface.co/org/adapter/blob/main/x.bin", "is not the page of a repository"),
        ("https://huggingface.co/org/..%2f..%2fx", "is no Hub id"),
        ("./nowhere", "There is no adapter folder"),
        ("./no\0thing", "There is no adapter folder"),
        ("./half\ud800", "There is no adapter folder"),
        ("C:\\adapters\\mine", "There is no adapter folder"),
        ("\\\\server\\mine", "There is no adapter folder"),
        ("~nobody-here/mine", "is no path on this machine"),
        ("/tmp/../etc", "goes up with '..'"),
        ("../shelf/formal", "goes up with '..'"),
        ("./../shelf/formal", "goes up with '..'"),
        ("x" * 5000, "is too long for an adapter's name"),
        ("/" + "x" * 5000, "is too long for an adapter's name"),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_what_names_no_adapter_is_a_sentence(make: Make, krutrim_spec: ModelSpec, text: str, says: str) -> None:
    with LocalHub({}) as hub:
        library = make(hub=hub.url)
        try:
            library.check(krutrim_spec, text)
        except (AdapterError, DownloadError) as error:
            sentence = str(error)
    assert says in sentence
    assert len(sentence) < SENTENCE_SIZE
    assert all("/org/adapter/" in request for request in hub.requests)


def test_an_adapter_of_the_catalog_may_lie_on_the_hub(layers: KnownLayers, formal: Path, tmp_path: Path) -> None:
    ours = Registry.load()
    entry = AdapterSpec(
        id="mine",
        name="Mine",
        base_models=("demo-krutrim",),
        languages=("hi",),
        about="It does.",
        weights=Place(hub="org/adapter", revision="v1"),
        licences=(Statement(text="MIT", source="me"),),
        sources=dict.fromkeys(AdapterSpec.facts, "me"),
    )
    with LocalHub({"org/adapter": {"v1": formal}}) as hub:
        store = AdapterStore(tmp_path / "store", hub.url)
        library = AdapterLibrary(Registry(ours, [entry]), (), store, layers, typed_folders=False)
        checked = library.check(ours.get("demo-krutrim"), "mine")
    assert (checked.id, checked.name, checked.revision) == ("mine", "Mine", commit_of("v1"))


# Folders where others can open the page


def test_where_others_can_open_the_page_only_listed_folders_count(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = shutil.copytree(formal, tmp_path / "outside")
    library = make(formal.parent, typed_folders=False)
    assert library.check(krutrim_spec, str(formal)).name == "formal"
    assert library.check(krutrim_spec, "./shelf/formal").name == "formal"
    texts = (str(outside), "./outside", "./nowhere", "/", "~", "~nobody-here/x", "./no\0thing", "../" * 9, "C:\\x")
    sentences = {refusal(library, krutrim_spec, text).replace(shown(text), "X") for text in texts}
    (sentence,) = sentences  # which does not even tell whether there is such a folder
    assert "--adapters" in sentence
    assert "goes up with '..'" in refusal(library, krutrim_spec, f"{formal.parent}/../outside")
    assert library.check(krutrim_spec, "krutrim-formal").name == "Formal Hindi (stand-in)"


def test_a_link_on_a_listed_shelf_counts_as_lying_there(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path
) -> None:
    real = formal.rename(tmp_path / "elsewhere")
    (formal.parent / "linked").symlink_to(real)
    library = make(formal.parent, typed_folders=False)
    (choice,) = [choice for choice in library.choices(krutrim_spec) if "/" in choice.id]
    checked = library.check(krutrim_spec, choice.id)
    assert (checked.id, checked.folder) == (str(formal.parent / "linked"), real)

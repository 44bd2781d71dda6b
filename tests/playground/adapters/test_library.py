"""The library: which adapters can be chosen for a model, what a text names, and what is remembered of a check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from local_hub import LocalHub, commit_of
from tiny_adapters import CONFIG, WEIGHTS, edit_config, edit_tensors

from model_registry.registry import Registry
from model_registry.spec import AdapterSpec, ModelSpec, Place, Statement
from playground.adapters import library as library_module
from playground.adapters.facts import BaseLayers, CheckedAdapter
from playground.adapters.fetch import AdapterStore
from playground.adapters.files import shown
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary
from playground.errors import AdapterError, CheckpointError, DownloadError

ROOT = Path(__file__).parents[3]
NOWHERE = "http://127.0.0.1:9"
COMMIT = commit_of("main")
SENTENCE_SIZE = 600

Make = Callable[..., AdapterLibrary]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def layers() -> KnownLayers:
    """Of the stand-ins, found in this process, once."""
    return KnownLayers(find_layers)


@pytest.fixture
def krutrim_spec(registry: Registry) -> ModelSpec:
    return registry.get("demo-krutrim")


@pytest.fixture
def formal(registry: Registry, tmp_path: Path) -> Path:
    """A copy of a real adapter of the stand-in."""
    folder = registry.adapter("krutrim-formal").weights.path
    assert folder is not None
    return Path(shutil.copytree(folder, tmp_path / "shelf" / "formal"))


@pytest.fixture
def make(registry: Registry, layers: KnownLayers, tmp_path: Path) -> Make:
    def make(*folders: Path, hub: str = NOWHERE, typed_folders: bool = True) -> AdapterLibrary:
        store = AdapterStore(tmp_path / "store", hub)
        return AdapterLibrary(registry, folders, store, layers, typed_folders=typed_folders)

    return make


@pytest.fixture
def inspections(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that the library has inspected so far."""
    seen: list[Path] = []
    inspect = library_module.inspect_adapter

    def counted(folder: Path, base: BaseLayers) -> object:
        seen.append(folder)
        return inspect(folder, base)

    monkeypatch.setattr(library_module, "inspect_adapter", counted)
    return seen


def refusal(library: AdapterLibrary, spec: ModelSpec, text: str, revision: str = "") -> str:
    with pytest.raises(AdapterError) as caught:
        library.check(spec, text, revision)
    assert len(str(caught.value)) < SENTENCE_SIZE
    str(caught.value).encode()
    return str(caught.value)


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


# What is remembered


def test_a_request_is_not_inspected_again(
    make: Make, krutrim_spec: ModelSpec, formal: Path, inspections: list[Path]
) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    assert inspections == [formal]
    assert library.check(krutrim_spec, str(formal), checked.revision) is checked
    assert inspections == [formal]
    library.check(krutrim_spec, str(formal))  # chosen anew: as it is now
    assert inspections == [formal, formal]


def test_a_request_to_one_that_is_not_remembered_is_inspected(
    make: Make, krutrim_spec: ModelSpec, formal: Path
) -> None:
    checked = make().check(krutrim_spec, str(formal))
    assert make().check(krutrim_spec, str(formal), checked.revision) == checked


def test_an_adapter_that_has_changed_must_be_chosen_again(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    edit_tensors(formal, lambda tensors: next(iter(tensors.values())).mul_(0.5))
    for asked in (library, make()):
        assert "has changed since it was chosen: choose it again" in refusal(
            asked, krutrim_spec, str(formal), checked.revision
        )
    again = library.check(krutrim_spec, str(formal))
    assert again.revision != checked.revision
    assert library.check(krutrim_spec, str(formal), again.revision) is again


def test_a_change_of_the_config_alone_is_seen_too(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    edit_config(formal, lora_alpha=1)
    assert "has changed since" in refusal(library, krutrim_spec, str(formal), checked.revision)
    assert library.check(krutrim_spec, str(formal)).facts.digest == checked.facts.digest, "the weights are the same"
    edit_config(formal, use_dora=True)
    assert "`use_dora`" in refusal(library, krutrim_spec, str(formal), checked.revision)


def test_an_adapter_that_is_gone_is_told(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    shutil.rmtree(formal)
    assert "There is no adapter folder" in refusal(library, krutrim_spec, str(formal), checked.revision)


def test_a_pinned_adapter_of_the_hub_is_that_commit_and_costs_no_request(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(formal, tmp_path / "other")
    edit_tensors(other, lambda tensors: next(iter(tensors.values())).mul_(0.5))
    with LocalHub({"org/adapter": {"main": other, "v1": formal}}) as hub:
        library = make(hub=hub.url)
        checked = library.check(krutrim_spec, "org/adapter@v1")
        asked = len(hub.requests)
        assert library.check(krutrim_spec, "org/adapter", checked.revision) is checked
        assert len(hub.requests) == asked
        shutil.rmtree(tmp_path / "store")  # somebody makes room
        assert library.check(krutrim_spec, "org/adapter", checked.revision) == checked
        assert library.check(krutrim_spec, "org/adapter").facts.digest != checked.facts.digest
    assert "is no commit" in refusal(library, krutrim_spec, "org/adapter", "main")
    assert "is no commit" in refusal(library, krutrim_spec, "org/adapter", f"sha256:{checked.facts.fingerprint}")


def test_only_so_many_are_remembered(
    make: Make, krutrim_spec: ModelSpec, formal: Path, inspections: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "REMEMBERED", 2)
    library = make()
    folders = [shutil.copytree(formal, formal.parent / str(number)) for number in range(3)]
    checked = [library.check(krutrim_spec, str(folder)) for folder in folders]
    for one, is_kept in zip(checked, (False, True, True), strict=True):
        inspections.clear()
        if is_kept:
            assert library.check(krutrim_spec, one.id, one.revision) is one
        assert not inspections
    assert library.check(krutrim_spec, checked[0].id, checked[0].revision) == checked[0]
    assert inspections == [folders[0]]


def test_a_model_remembers_for_itself(make: Make, registry: Registry, krutrim_spec: ModelSpec, formal: Path) -> None:
    library = make()
    checked = library.check(krutrim_spec, str(formal))
    assert "Wqkv" in refusal(library, registry.get("demo-kullm3"), str(formal), checked.revision)
    assert "Wqkv" in refusal(library, registry.get("demo-kullm3"), "krutrim-formal")


def test_many_may_ask_at_once_and_no_download_stops_the_others(
    make: Make, krutrim_spec: ModelSpec, formal: Path
) -> None:
    with LocalHub({"org/adapter": formal}, stall_after=1000) as hub, ThreadPoolExecutor(9) as threads:
        library = make(hub=hub.url)
        slow = threads.submit(library.check, krutrim_spec, "org/adapter")
        assert hub.stalled.wait(60)
        others = [threads.submit(library.check, krutrim_spec, str(formal)) for _ in range(8)]
        assert len({other.result(60).revision for other in others}) == 1
        assert not slow.done()
        hub._end.set()  # the rest of the file comes never: the download breaks off and is taken up again
        assert slow.result(60).revision == COMMIT


# The layers of a model


def test_those_who_ask_first_wait_for_one_search(registry: Registry, layers: KnownLayers) -> None:
    spec, asked, go_on = registry.get("demo-krutrim"), [], threading.Event()

    def find(spec: ModelSpec) -> BaseLayers:
        asked.append(spec.id)
        go_on.wait(60)
        return layers(spec)

    known = KnownLayers(find)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(known, spec) for _ in range(4)]
        go_on.set()
        assert len({id(answer.result()) for answer in answers}) == 1
    assert asked == ["demo-krutrim"]


def test_a_failed_search_is_told_to_all_and_done_again(registry: Registry, layers: KnownLayers) -> None:
    spec, fails = registry.get("demo-krutrim"), [True]

    def find(spec: ModelSpec) -> BaseLayers:
        if fails.pop():
            raise CheckpointError("config.json is missing")
        return layers(spec)

    known = KnownLayers(find)
    with pytest.raises(CheckpointError, match="is missing"):
        known(spec)
    fails.append(False)
    assert known(spec).linear


IN_THE_APP = """
import sys
from pathlib import Path
from model_registry.registry import Registry
from playground.adapters.fetch import AdapterStore
from playground.adapters.known_layers import KnownLayers, find_layers
from playground.adapters.library import AdapterLibrary
from playground.engines.processes.child_process import in_child
from playground.errors import CheckpointError

registry = Registry.load()
layers = KnownLayers(lambda spec: in_child(find_layers, spec))
library = AdapterLibrary(registry, (), AdapterStore(Path("store")), layers, typed_folders=True)
print(library.check(registry.get("demo-krutrim"), "krutrim-casual").facts.digest)
empty = registry.get("demo-kullm3").weights.model_copy(update={"path": Path("/nowhere")})
try:
    layers(registry.get("demo-kullm3").model_copy(update={"weights": empty}))
except CheckpointError as error:
    print(error)
print("torch" in sys.modules, Path("store").exists())
"""


def test_the_app_checks_adapters_without_torch(make: Make, krutrim_spec: ModelSpec, tmp_path: Path) -> None:
    """As app.py puts it together, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_THE_APP],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    digest, sentence, has_torch = done.stdout.splitlines()
    assert digest == make().check(krutrim_spec, "krutrim-casual").facts.digest
    assert sentence.startswith("KULLM3 stand-in: config.json in /nowhere describes no model that can be built")
    assert has_torch == "False False"


# What strangers make


Damage = Callable[[Path], object]
HOSTILE: list[tuple[Damage, str]] = [
    (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "pickle only"),
    (lambda folder: edit_config(folder, init_lora_weights="pissa"), "`init_lora_weights` is 'pissa'"),
    (lambda folder: edit_config(folder, modules_to_save=["wte"]), "`modules_to_save`"),
    (lambda folder: edit_config(folder, r=8), "has shape"),
    (lambda folder: edit_config(folder, target_modules=["no_proj"]), "'no_proj', which this model has not"),
    (lambda folder: edit_tensors(folder, lambda t: next(iter(t.values())).fill_(float("nan"))), "NaN"),
    (lambda folder: edit_tensors(folder, lambda t: t.pop(next(k for k in t if "lora_B" in k))), "no lora_B"),
    (lambda folder: edit_tensors(folder, lambda t: t.update(extra=next(iter(t.values())).clone())), "'extra'"),
    (lambda folder: (folder / WEIGHTS).write_bytes((2 << 30).to_bytes(8, "little") + b"{}"), "claims a header"),
    (lambda folder: os.truncate(folder / WEIGHTS, 1000), "is cut off"),
]


@pytest.mark.parametrize(("damage", "says"), HOSTILE, ids=[says for _, says in HOSTILE])
@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_refusal_leaves_nothing_behind_and_is_not_remembered(
    make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path, place: str, damage: Damage, says: str
) -> None:
    damage(formal)
    before = sorted(tmp_path.rglob("*"))
    with LocalHub({"org/adapter": formal}) as hub:
        library = make(hub=hub.url)
        text = "org/adapter" if place == "hub" else str(formal)
        for _ in range(2):
            assert says in refusal(library, krutrim_spec, text)
        assert says in refusal(library, krutrim_spec, text, COMMIT if place == "hub" else "sha256:" + "0" * 64)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] in ([], [tmp_path / "store"])
    assert not library._known


def test_a_link_out_of_the_folder_is_refused(make: Make, krutrim_spec: ModelSpec, formal: Path, tmp_path: Path) -> None:
    (formal / WEIGHTS).rename(tmp_path / "elsewhere")
    (formal / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    assert "is a link out of the adapter's folder" in refusal(make(), krutrim_spec, str(formal))


def test_a_repository_that_is_not_there_is_a_sentence(make: Make, krutrim_spec: ModelSpec, tmp_path: Path) -> None:
    with LocalHub({"org/gated": "gated"}) as hub:
        library = make(hub=hub.url)
        with pytest.raises(DownloadError, match="no public repository org/nowhere"):
            library.check(krutrim_spec, "org/nowhere")
        with pytest.raises(DownloadError, match="org/gated is gated"):
            library.check(krutrim_spec, "org/gated")
    assert not (tmp_path / "store").exists()


def test_warnings_come_with_the_adapter(make: Make, krutrim_spec: ModelSpec, formal: Path) -> None:
    edit_config(formal, base_model_name_or_path="somebody/elses")
    (formal / "adapter_model.bin").write_bytes(b"a pickle")
    checked: CheckedAdapter = make().check(krutrim_spec, str(formal))
    pickle, other = checked.facts.warnings
    assert "'adapter_model.bin'. They are never read." in pickle
    assert "was trained on 'somebody/elses'" in other

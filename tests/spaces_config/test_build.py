"""The folder of a Space: exactly what the app needs, and never in place of anybody's files."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest
from a_space import a_space, built, server_file

from model_registry.catalog_file import read_catalog_file
from model_registry.registry import CATALOG
from playground.errors import CatalogError, SpaceError
from spaces_config.__main__ import main
from spaces_config.build import NOT_NEEDED, app_files, build, built_files, listing, unsaved
from spaces_config.pins import Pin, pinned
from spaces_config.profile import PROFILES, our_profiles
from spaces_config.space import ROOT, Space, load_registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTSIDE = {"app.py", "LICENSE", "README.md", "requirements.txt"}


@pytest.mark.parametrize("name", our_profiles())
def test_the_folder_holds_what_the_app_needs_and_nothing_else(name: str, tmp_path: Path) -> None:
    space, out = built(name, tmp_path)
    files = {file.path for file in built_files(out)}
    servers = {f"servers/{path.name}" for path in space.server_files}
    assert files == {*app_files(), "README.md", "requirements.txt", *servers}
    inside = {path for path in files if path not in OUTSIDE and path not in servers}
    assert all(path.startswith(("playground/", "model_registry/")) for path in inside)
    assert not [path for path in files if "test" in path or "__pycache__" in path or path.startswith((".", "docs/"))]


def test_it_is_all_that_git_knows_of_the_packages_but_what_trains_the_stand_ins() -> None:
    command = ["git", "-C", str(ROOT), "ls-files", "playground", "model_registry", "app.py", "LICENSE"]
    tracked = set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines())
    left_out = tracked - set(app_files())
    assert {path for path in left_out if not path.startswith("model_registry/demo/")} <= {"model_registry/README.md"}
    assert {Path(path).suffix for path in left_out} <= {".py", ".md", ".toml"}
    assert {
        "model_registry/demo/krutrim/model.safetensors",
        "model_registry/demo/kullm3/chat_template.jinja",
        "model_registry/demo/examples.toml",
        "model_registry/demo/adapters/kullm3-formal/adapter_model.safetensors",
        "playground/ui/style.css",
        "playground/ui/page.js",
    } <= set(app_files())


def test_nothing_that_is_left_out_is_imported_by_what_is_there() -> None:
    imported: set[str] = set()
    for path in app_files():
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            imported.update(names)
    ours = {name for name in imported if name.split(".")[0] in ("app", "playground", "model_registry", "spaces_config")}
    there = set(app_files())
    missing = {
        name for name in ours if not {f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py"} & there
    }
    assert missing == set()


def test_each_kind_that_is_left_out_is_there_to_be_left_out() -> None:
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, check=True, text=True).stdout
    for kind in NOT_NEEDED:
        assert any(Path(path).match(kind) for path in tracked.splitlines())


def test_a_commit_stands_in_the_catalog_that_the_app_reads(tmp_path: Path) -> None:
    space = a_space("zero-gpu", tmp_path)
    pins = tuple(Pin(pin.spec, COMMIT) for pin in space.pins)
    build(Space(space.profile, space.registry, pins), tmp_path / "out")
    catalog = tmp_path / "out" / "model_registry" / "catalog"
    for pin in pins:
        spec = read_catalog_file(catalog / f"{pin.spec.id}.toml", ours=True)
        assert spec.weights == pin.spec.weights.model_copy(update={"revision": COMMIT})  # type: ignore[union-attr]
    assert (catalog / "krutrim-1-base.toml").read_text() == (CATALOG / "krutrim-1-base.toml").read_text()


@pytest.mark.parametrize("path", sorted(CATALOG.glob("*.toml")), ids=lambda path: path.stem)
def test_every_model_stands_in_the_file_of_its_name(path: Path) -> None:
    assert read_catalog_file(path, ours=True).id == path.stem


def test_a_commit_takes_the_place_of_a_revision() -> None:
    text = '[weights]\nhub = "a/b"\nrevision = "v1"\nbytes = 1\n'
    assert pinned(text, COMMIT) == f'[weights]\nhub = "a/b"\nrevision = "{COMMIT}"\nbytes = 1\n'
    assert pinned('[weights]\nhub = "a/b"\nbytes = 1\n', COMMIT).splitlines()[2] == f'revision = "{COMMIT}"'


def test_servers_lie_beside_the_app(tmp_path: Path) -> None:
    space, out = built("remote", tmp_path)
    for path in space.server_files:
        assert (out / "servers" / path.name).read_bytes() == path.read_bytes()


def test_what_is_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"kullm3\.toml describes no server"):
        load_registry([CATALOG / "kullm3.toml"])
    with pytest.raises(CatalogError, match="serves an unknown model"):
        load_registry([server_file(tmp_path, "kullm9")])
    first, second = server_file(tmp_path / "a", "kullm3"), server_file(tmp_path / "b", "kullm3", id='"other"')
    with pytest.raises(SpaceError, match="the same name"):
        load_registry([first, second])


def test_it_is_built_again_in_the_same_folder_and_nothing_old_stays(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    before = built_files(out)
    (out / "playground" / "__pycache__").mkdir()
    (out / "playground" / "__pycache__" / "old.pyc").write_bytes(b"old")
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref: refs/heads/main")
    assert build(space, out) == before
    assert (out / ".git" / "HEAD").read_text() == "ref: refs/heads/main"


@pytest.mark.parametrize("name", ["README.md", "thesis.tex"])
def test_a_folder_with_somebodys_files_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(SpaceError, match=f"holds files that were not built here, such as {name}"):
        build(a_space("cpu-basic", tmp_path / "given"), tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_the_repository_itself_is_never_emptied(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="were not built here"):
        build(a_space("cpu-basic", tmp_path), ROOT)
    assert (ROOT / "app.py").is_file()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SpaceError, match="is a file"):
        build(a_space("cpu-basic", tmp_path), tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / "file" / "x", tmp_path / "dangling", tmp_path / "loop", Path("/proc/foo")):
        with pytest.raises(SpaceError) as caught:
            build(a_space("cpu-basic", tmp_path), out)
        assert str(caught.value).startswith(f"The folder {out} could not be written: ")
        assert str(caught.value).endswith(". Name another one.")


@pytest.mark.parametrize("where", ["servers", "mine", "."])
def test_files_of_the_users_in_the_folder_are_not_lost(where: str, tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    server = server_file(out / where, "demo-kullm3")
    with pytest.raises(SpaceError, match=r"demo-kullm3\.toml lies in .*, which is emptied first: move it"):
        build(Space(space.profile, load_registry([server]), (), (server,)), out)
    assert server.is_file()
    assert (out / "app.py").is_file()


def test_nor_is_a_link_to_one_or_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space, out = built("cpu-basic", tmp_path)
    server = server_file(tmp_path / "given", "demo-kullm3")
    (out / "link.toml").symlink_to(server)
    with pytest.raises(SpaceError, match="lies in"):
        build(Space(space.profile, space.registry, (), (out / "link.toml",)), out)
    mine = out / "mine.toml"
    mine.write_text((PROFILES / "cpu-basic.toml").read_text("utf-8"), "utf-8")
    assert main(["deploy", "--profile", str(mine), "--dry-run", "--offline", "--out", str(out)]) == 2
    assert f"{mine} lies in {out}, which is emptied first" in capsys.readouterr().err
    assert mine.is_file()


@pytest.mark.parametrize("broken", ["copyfile", "rmtree"])
def test_what_was_broken_off_is_built_again(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, out = a_space("cpu-basic", tmp_path), tmp_path / "out"
    if broken == "rmtree":
        build(space, out)
    work, left = getattr(shutil, broken), iter(range(1))

    def breaks_off(*paths: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        work(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, broken, breaks_off)
        with pytest.raises(KeyboardInterrupt):
            build(space, out)
    assert (out / "README.md").is_file()
    assert {file.path for file in build(space, out)} == {*app_files(), "README.md", "requirements.txt"}


def test_the_listing_names_every_file_with_its_size_and_the_sum(tmp_path: Path) -> None:
    _, out = built("cpu-basic", tmp_path)
    files = built_files(out)
    text = listing(files)
    for file in files:
        assert f"{file.bytes:,}  {file.path}" in text
    assert f"{sum(file.bytes for file in files):,}  bytes in {len(files)} files" in text
    largest = text.splitlines()[-5:]
    assert largest[0].endswith("model_registry/demo/kullm3/model.safetensors (into the storage for large files)")
    assert largest[4].endswith("model_registry/demo/krutrim/tokenizer.json")
    assert max(file.bytes for file in files) < 10_000_000


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the last commit, which Spaces are built from now."""
    clone = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(clone)], check=True)
    monkeypatch.setattr("spaces_config.build.ROOT", clone)
    return clone


def test_where_all_is_committed_there_is_nothing_to_say(checkout: Path) -> None:
    (checkout / "thesis.tex").write_text("not needed")
    (checkout / "docs" / "thesis.md").write_text("not needed")
    (checkout / "CHANGELOG.md").write_text("not needed")
    (checkout / "playground" / "__pycache__").mkdir()
    (checkout / "playground" / "__pycache__" / "old.pyc").write_text("ignored")
    assert unsaved() == []


def test_what_git_does_not_know_or_knows_otherwise_is_told(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "playground" / "new.py").write_text("new = 1")
    (checkout / "playground" / "staged.py").write_text("staged = 1")
    subprocess.run(["git", "-C", str(checkout), "add", "playground/staged.py"], check=True)
    (checkout / "LICENSE").write_text("mine")
    (checkout / "playground" / "errors.py").unlink()
    out = checkout.parent / "out"
    assert main(["deploy", "--profile", "cpu-basic", "--dry-run", "--offline", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "- git does not know these, and they are left out: playground/new.py.\n" in told
    changed = "LICENSE, playground/staged.py"
    assert f"- These were changed since the last commit, and are taken as they are: {changed}.\n" in told
    assert "- These are gone since the last commit, and are left out: playground/errors.py.\n" in told
    assert (out / "LICENSE").read_text() == "mine"
    assert (out / "playground" / "staged.py").is_file()
    assert not (out / "playground" / "new.py").exists()


def test_of_many_files_some_are_named(checkout: Path) -> None:
    for number in range(8):
        (checkout / "playground" / f"a{number}.py").write_text("")
    named = ", ".join(f"playground/a{number}.py" for number in range(5))
    assert unsaved() == [f"git does not know these, and they are left out: {named} and 3 more."]

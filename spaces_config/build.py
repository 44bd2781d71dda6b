"""Writes the folder of a Space: what the app needs while it runs, its requirements and its README.md; nothing else.

Only files that git knows, so that nothing slips out that merely lies about. Called by the command, before `check`.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground.errors import SpaceError
from spaces_config.card import BUILT, readme
from spaces_config.pins import commits, pinned
from spaces_config.space import ROOT, SERVERS, Space

NEEDED = ("app.py", "LICENSE", "playground", "model_registry")
NOT_NEEDED = (
    "*.md",
    "model_registry/demo/corpus/*",
    "model_registry/demo/registers/*",
    "model_registry/demo/[!_]*.py",
)
"""Of what is needed, that which only trains the stand-ins or tells of them."""

CATALOG = "model_registry/catalog"
LARGE_BYTES = 10_000_000
BINARY = (".safetensors",)
"""Larger files, and binary ones of any size, the Hub wants in its storage for large files; huggingface_hub sees to it,
and a plain `git push` of such a file is refused."""

LARGEST = 5
NAMED = 5
"""How many files a sentence names."""


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """`path` within the folder, with slashes; `bytes` of the file."""

    path: str
    bytes: int


def build(space: Space, out: Path) -> tuple[BuiltFile, ...]:
    """Write the folder, in place of an older one. The files, by name.

    Raises:
        SpaceError: there is something in `out` that is not ours, it cannot be written, or there is no checkout to
            build from.
    """
    sources, card, requirements = app_files(), readme(space), space.requirements
    require_outside(out, space.server_files)
    clear(out)
    pins = {f"{CATALOG}/{model_id}.toml": commit for model_id, commit in commits(space.pins).items()}
    with _writing(out):
        (out / "README.md").write_text(card, "utf-8")  # first, so that what is broken off is known as ours
        for path in sources:
            _write(out / path, ROOT / path, pins.get(path))
        for file in space.server_files:
            _write(out / SERVERS / file.name, file, None)
        (out / "requirements.txt").write_text(requirements, "utf-8")
        return built_files(out)


def built_files(out: Path) -> tuple[BuiltFile, ...]:
    """What lies in a folder, by name; what git keeps there is not of it."""
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    files = [BuiltFile(path.relative_to(out).as_posix(), path.stat().st_size) for path in paths]
    return tuple(file for file in files if not file.path.startswith(".git/"))


def app_files() -> list[str]:
    """What the app needs while it runs, from the checkout. Raises SpaceError."""
    return [path for path in _git("ls-files", "-z") if (ROOT / path).is_file()]


def unsaved() -> list[str]:
    """Where the checkout differs from what was committed, a sentence each: what becomes of it. Raises SpaceError."""
    names = ("--name-only", "--relative", "--no-renames", "-z")
    changed = {*_git("diff", *names), *_git("diff", "--cached", *names)}
    gone = {path for path in changed if not (ROOT / path).is_file()}
    kinds = (
        ("git does not know these, and they are left out", _git("ls-files", "--others", "--exclude-standard", "-z")),
        ("These were changed since the last commit, and are taken as they are", changed - gone),
        ("These are gone since the last commit, and are left out", gone),
    )
    return [f"{what}: {_some(sorted(paths))}." for what, paths in kinds if paths]


def _git(*command: str) -> list[str]:
    """The paths that a command of git tells, of those that the app needs. Raises SpaceError."""
    line = ["git", "--no-optional-locks", "-C", str(ROOT), *command, "--", *NEEDED]
    try:
        told = subprocess.run(line, capture_output=True, check=True, encoding="utf-8").stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        raise SpaceError(f"A Space is built from the files that git knows, and git says nothing of {ROOT}.") from error
    return [path for path in told if path and not any(fnmatch.fnmatch(path, kind) for kind in NOT_NEEDED)]


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def require_outside(out: Path, files: Sequence[Path]) -> None:
    """Raises SpaceError where one of the user's files lies in the folder that is emptied before it is built."""
    folder = os.path.realpath(out)  # which, unlike Path.resolve, bears a link to itself
    for file in files:
        if any(Path(os.path.realpath(path)).is_relative_to(folder) for path in (file, file.parent)):
            raise SpaceError(f"{file} lies in {out}, which is emptied first: move it, or name another folder.")


def clear(out: Path) -> None:
    """Make `out` an empty folder; what git keeps there stays.

    Raises:
        SpaceError: it is not ours to empty, or the system does not let us.
    """
    with _writing(out):
        if out.exists() and not out.is_dir():
            raise SpaceError(f"{out} is a file: name a folder.")
        out.mkdir(parents=True, exist_ok=True)
        found = [path for path in out.iterdir() if path.name != ".git"]
        if found and not is_ours(out):
            named = found[0].name
            raise SpaceError(f"{out} holds files that were not built here, such as {named}: name another folder.")
        for path in sorted(found, key=lambda path: path.name == "README.md"):  # last, for it says that they are ours
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Raises SpaceError where the system does not let us write there."""
    try:
        yield
    except OSError as error:
        raise SpaceError(f"The folder {out} could not be written: {error}. Name another one.") from error


def is_ours(folder: Path) -> bool:
    """Whether it was written by `build`."""
    card = folder / "README.md"
    return card.is_file() and BUILT in card.read_text("utf-8", errors="replace")


def listing(files: Sequence[BuiltFile]) -> str:
    """A line for every file, then the sum, and which are the largest."""
    lines = [f"{file.bytes:>12,}  {file.path}" for file in files]
    largest = sorted(files, key=lambda file: -file.bytes)[:LARGEST]
    lines += ["", f"{sum(file.bytes for file in files):>12,}  bytes in {len(files)} files; the largest:"]
    return "\n".join([*lines, *(f"{file.bytes:>12,}  {file.path}{_stored(file)}" for file in largest)])


def _stored(file: BuiltFile) -> str:
    return " (into the storage for large files)" if file.bytes > LARGE_BYTES or file.path.endswith(BINARY) else ""


def _write(target: Path, source: Path, commit: str | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if commit is None:
        shutil.copyfile(source, target)
    else:
        target.write_text(pinned(source.read_text("utf-8"), commit), "utf-8")

"""`python -m spaces_config profiles | check | deploy`: which Spaces there are, whether one would run, and making it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi

from playground.errors import DownloadError, PlaygroundError, SpaceError
from spaces_config.build import build, built_files, listing, require_outside, unsaved
from spaces_config.check import check, check_secrets, remarks
from spaces_config.deploy import found_secrets, look, outlook, require_name, settings, upload
from spaces_config.hardware import flavours
from spaces_config.pins import resolve, unpinned
from spaces_config.profile import find_profile, our_profiles
from spaces_config.requirements import pins
from spaces_config.space import Space, load_registry, our_requirements

COLUMNS = ("profile", "hardware", "it has", "Python", "torch", "models")
NOT_PINNED = "The models are not pinned to commits: the Hub takes what their branches hold when it builds the Space."


def main(arguments: Sequence[str] | None = None, api: HfApi | None = None) -> int:
    """0: done; 1: something is in the way, and nothing was uploaded; 2: the question is wrong."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "profiles":
            print(profiles())
            return 0
        return _check(asked) if asked.command == "check" else _deploy(asked, api or HfApi())
    except PlaygroundError as error:
        print(error, file=sys.stderr)
        return 2


def profiles() -> str:
    """All of ours, as a table."""
    torch = pins(our_requirements())["torch"]
    rows = [COLUMNS]
    for name in our_profiles():
        profile = find_profile(name)
        has, models = str(flavours()[profile.hardware]), " ".join(profile.models)
        where = f"{models}, elsewhere" if profile.elsewhere else models
        rows.append((name, profile.hardware, has, profile.python_version, profile.torch or torch, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _check(asked: argparse.Namespace) -> int:
    space = _space(asked)
    with tempfile.TemporaryDirectory() as folder:
        build(space, Path(folder))
        return _told(space, Path(folder))


def _deploy(asked: argparse.Namespace, api: HfApi) -> int:
    if asked.repo is None and not asked.dry_run:
        raise SpaceError("Say which Space it is to be, --repo owner/name, or --dry-run to upload nothing.")
    if asked.repo is not None:
        require_name(asked.repo)
    space = _space(asked) if asked.offline else _pinned(_space(asked), asked.dry_run, api)
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = asked.out or Path(temporary)
        require_outside(folder, [Path(asked.profile)] if asked.profile.endswith(".toml") else [])
        files = build(space, folder)
        print(listing(files), end="\n\n")
        if _told(space, folder):
            return 1
        if asked.dry_run:
            print(settings(space, found_secrets(space)))
            where = f" The folder is {folder}." if asked.out else ""
            print(f"Nothing was uploaded.{where}")
            return 0 if asked.offline or space.is_pinned else 1
        return _bring(asked, space, folder, api)


def _bring(asked: argparse.Namespace, space: Space, folder: Path, api: HfApi) -> int:
    files, secrets = built_files(folder), found_secrets(space)
    target = look(api, asked.repo, asked.private)
    print(outlook(space, files, target, secrets))
    if not asked.yes and not _agreed(asked.repo):
        print("Nothing was uploaded.")
        return 1
    print(f"The Hub builds it now: {upload(space, folder, files, target, secrets, api)}")
    return 0


def _space(asked: argparse.Namespace) -> Space:
    """What was asked for, unpinned."""
    profile, registry = find_profile(asked.profile), load_registry(asked.server)
    if asked.hardware is not None:
        profile = profile.model_copy(update={"hardware": asked.hardware})
    return Space(profile, registry, unpinned(profile, registry), tuple(asked.server))


def _pinned(space: Space, dry_run: bool, api: HfApi) -> Space:
    """The same at the commits of now. Without the Hub, a dry run goes on and says so."""
    try:
        return replace(space, pins=resolve(space.profile, space.registry, api))
    except DownloadError as error:
        if not dry_run:
            raise
        print(error, file=sys.stderr)
        return space


def _told(space: Space, folder: Path) -> int:
    problems = [*check(space, folder), *check_secrets(space, folder, found_secrets(space))]
    for problem in problems:
        print(f"- {problem}", file=sys.stderr)
    for remark in (*unsaved(), *remarks(space)):
        print(f"- {remark}")
    print("This would not work as a Space." if problems else f"The profile {space.profile.id} passes its check.")
    if not space.is_pinned:
        print(NOT_PINNED)
    return 1 if problems else 0


def _agreed(repo: str) -> bool:
    try:
        return input(f"Upload this to {repo}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spaces_config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("profiles", help="list our profiles")
    for name, what in (("check", "build and check one, and throw it away"), ("deploy", "build, check, upload")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--profile", required=True, help="one of ours, or a TOML file of your own")
        command.add_argument(
            "--server",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="the catalog file of an inference server that the Space asks; may be given several times",
        )
        command.add_argument("--hardware", choices=sorted(flavours()), help="other hardware than the profile's")
    _add_upload(command)
    return parser


def _add_upload(deploy: argparse.ArgumentParser) -> None:
    deploy.add_argument("--repo", metavar="OWNER/NAME", help="the Space, new or there already")
    deploy.add_argument("--dry-run", action="store_true", help="build, check and show it; upload nothing")
    deploy.add_argument("--out", type=Path, metavar="DIR", help="keep the folder here (default: a temporary one)")
    deploy.add_argument("--offline", action="store_true", help="do not ask the Hub for the models' commits")
    deploy.add_argument("--private", action="store_true", help="a new Space is seen by its owner alone")
    deploy.add_argument("--yes", action="store_true", help="do not ask before uploading")


if __name__ == "__main__":
    sys.exit(main())

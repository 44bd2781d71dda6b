"""Brings a built and checked folder to the Hub: what that would change, and then doing it.

Uses huggingface_hub's own login. Values of secrets pass from the environment to the Hub and are never told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceHardware
from huggingface_hub.utils import validate_repo_id
from pydantic import SecretStr

from model_registry.spec import HUB_LOGINS
from playground.errors import SpaceError
from playground.hub_errors import upload_errors
from playground.settings import read_secret
from spaces_config.build import BuiltFile
from spaces_config.profile import NEVER
from spaces_config.space import Space

KEPT = (".gitattributes",)
"""What the Hub itself writes into a Space."""

MESSAGE = "Build the playground from the profile {profile}"

UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. `there`: the files of the Space if it exists already, else None. `private`: whether a new one is."""

    repo: str
    private: bool = False
    there: tuple[str, ...] | None = None


def require_name(repo: str) -> None:
    """Raises SpaceError where no Space can have this name, or where its owner is not said."""
    with upload_errors(repo):
        validate_repo_id(repo)
    if "/" not in repo:
        raise SpaceError(f"{repo!r} does not say whose Space it is to be: write owner/name.")


def look(api: HfApi, repo: str, private: bool) -> Target:
    """What is at this name. Raises SpaceError."""
    with upload_errors(repo):
        exists = api.repo_exists(repo, repo_type="space")
        there = tuple(sorted(api.list_repo_files(repo, repo_type="space"))) if exists else None
    return Target(repo, private, there)


def found_secrets(space: Space, environment: Mapping[str, str] | None = None) -> dict[str, SecretStr]:
    """Those of the Space that the environment of this command holds, by name; never who runs it at the Hub."""
    names = [secret.name for secret in space.secrets if secret.name not in HUB_LOGINS]
    values = {name: read_secret(name, environment) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def outlook(space: Space, files: Sequence[BuiltFile], target: Target, secrets: Mapping[str, SecretStr]) -> str:
    """What `upload` will do, for the person who is asked."""
    gone = deleted(files, target)
    lost = [f"deleted there, for it is not among these files: {', '.join(gone)}"] if gone else []
    return "\n".join([f"{target.repo}: {_state(target)}", settings(space, secrets), *lost])


def settings(space: Space, secrets: Mapping[str, SecretStr]) -> str:
    """What of it can be said without asking the Hub: hardware, variables, and secrets by their names."""
    price = "" if space.hardware.free else ", which the Hub charges for while it runs"
    lines = [
        f"hardware: {space.profile.hardware} ({space.hardware}){price}{_sleep(space.sleep_time_s)}",
        *(f"variable {item.name}: {item.value}" for item in space.variables),
        *(f"secret {secret.name}: {_state_of(secret.name, secrets)}. {secret.about}" for secret in space.secrets),
    ]
    return "\n".join(lines)


def deleted(files: Sequence[BuiltFile], target: Target) -> list[str]:
    """Files of an existing Space that are not among ours."""
    ours = {file.path for file in files}
    return [path for path in target.there or () if path not in ours and path not in KEPT]


def upload(
    space: Space,
    folder: Path,
    files: Sequence[BuiltFile],
    target: Target,
    secrets: Mapping[str, SecretStr],
    api: HfApi,
) -> str:
    """Make the Space or take the one that is there; its address.

    Settings and hardware come before the files, whose arrival starts the build; the files come in one commit, so that
    it is built once and never from half of them.

    Raises:
        SpaceError: the Hub refused something, or cannot be reached. Doing it again is safe.
    """
    repo = target.repo
    with upload_errors(repo):
        api.create_repo(
            repo, repo_type="space", space_sdk="gradio", private=True if target.private else None, exist_ok=True
        )
        for variable in space.variables:
            api.add_space_variable(repo, variable.name, variable.value, description=variable.about)
        about = {secret.name: secret.about for secret in space.secrets}
        for name, value in secrets.items():
            api.add_space_secret(repo, name, value.get_secret_value(), description=about[name])
        hardware = SpaceHardware(space.profile.hardware)
        api.request_space_hardware(repo, hardware, sleep_time=space.sleep_time_s)
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(path) for path in deleted(files, target)),
            *(CommitOperationAdd(file.path, folder / file.path) for file in files),
        ]
        message = MESSAGE.format(profile=space.profile.id)
        api.create_commit(repo, changes, commit_message=message, repo_type="space")
    return f"{api.endpoint}/spaces/{repo}"


def _state(target: Target) -> str:
    if target.there is None:
        return f"a new Space, {'private' if target.private else 'public'}"
    return f"is there already, with {len(target.there)} files; who may see it stays as it is"


def _sleep(seconds: int | None) -> str:
    if seconds is None:
        return ""
    if seconds == NEVER:
        return "; never sleeps"
    unit, name = next((unit, name) for unit, name in UNITS if seconds % unit == 0)
    return f"; sleeps after {seconds // unit} {name} without a visitor"


def _state_of(name: str, secrets: Mapping[str, SecretStr]) -> str:
    if name in HUB_LOGINS:
        return "not taken from the environment, where it is your own login; set the Space's own in its settings"
    return "set from the environment" if name in secrets else "not in the environment; set it in the Space's settings"

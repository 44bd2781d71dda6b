"""The requirements.txt of a Space: ours, with what its platform and its profile want otherwise.

The Hub installs it in one pip command with PLATFORM, so all of it must be consistent. Knows text only.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

from playground.errors import SpaceError

PLATFORM = ("gradio[oauth,mcp]=={sdk_version}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces")
"""What the Hub adds to the requirements of every Space with Gradio's SDK, in the same pip command."""

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s#;]+)\s*$", re.MULTILINE)


def pins(requirements: str) -> dict[str, str]:
    """Versions by name, in small letters."""
    return {name.lower(): version for name, version in PIN.findall(requirements)}


def sdk_version(requirements: str) -> str:
    """Gradio's version, which the Hub is told in the front matter. Raises SpaceError."""
    version = pins(requirements).get("gradio")
    if version is None:
        raise SpaceError("requirements.txt pins no gradio: write gradio==VERSION.")
    return version


def requirements(ours: str, torch: str | None, quantiser: str | None) -> str:
    """The text for the folder.

    ours: the text of the repository's file.
    torch: the version that the platform wants, None for ours.
    quantiser: what loads weights in 8 or 4 bits, as a requirement, where that is wanted.
    """
    if torch is not None:
        ours, count = re.subn(r"^torch==.*$", f"torch=={torch}", ours, flags=re.MULTILINE)
        if count != 1:
            raise SpaceError("requirements.txt must pin torch in one line, for the platform wants another version.")
    return f"{ours.rstrip()}\n" + (f"\n# For weights in 8 or 4 bits.\n{quantiser}\n" if quantiser else "")


def quantiser(pyproject: Path) -> str:
    """What the optional extra `quantisation` installs."""
    extras = tomllib.loads(pyproject.read_text("utf-8"))["project"]["optional-dependencies"]
    return "\n".join(extras["quantisation"])


def runs_on(pyproject: Path) -> SpecifierSet:
    """The Pythons that the code is written for."""
    return SpecifierSet(tomllib.loads(pyproject.read_text("utf-8"))["project"]["requires-python"])


def platform(version: str) -> tuple[str, ...]:
    """PLATFORM for this version of Gradio."""
    return tuple(item.format(sdk_version=version) for item in PLATFORM)

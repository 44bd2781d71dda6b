"""README.md of a Space: the front matter that the Hub obeys, and a page for whoever looks at its files.

Pure: values in, text out. The repository's own README.md carries the front matter of the profile cpu-basic.
"""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub import SpaceCard, SpaceCardData

from model_registry.spec import ModelSpec
from spaces_config.requirements import sdk_version
from spaces_config.space import Space, our_requirements

BUILT = "<!-- Built by `python -m spaces_config`; what is changed here is lost when it is built again. -->"
"""How a folder is known to be ours."""

TAGS = ["chat", "side-by-side", "indic", "korean"]


def card_data(space: Space) -> SpaceCardData:
    """The front matter."""
    profile = space.profile
    hub_ids = [spec.weights.hub for spec in space.models if spec.weights.hub]
    return SpaceCardData(
        title=profile.title,
        emoji=profile.emoji,
        colorFrom=profile.color_from,
        colorTo=profile.color_to,
        sdk="gradio",
        sdk_version=sdk_version(our_requirements()),
        python_version=profile.python_version,
        app_file="app.py",
        fullWidth=True,
        header="mini",
        short_description=profile.short_description,
        models=hub_ids or None,
        tags=TAGS,
        license="apache-2.0",
        pinned=False,
        suggested_hardware=profile.hardware,
        disable_embedding=profile.disable_embedding,
        startup_duration_timeout=profile.startup_duration_timeout,
        preload_from_hub=[pin.line for pin in space.pins] or None,
    )


def readme(space: Space) -> str:
    """The whole file of a built folder."""
    return SpaceCard(f"---\n{card_data(space).to_yaml()}\n---\n\n{_body(space)}").content


def front_matter(text: str) -> dict[str, Any]:
    """What a README.md says to the Hub. Raises ValueError where that cannot be read."""
    try:
        return SpaceCard(text).data.to_dict()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _body(space: Space) -> str:
    profile = space.profile
    parts = [f"# {profile.title}", profile.about, _models(space), _run(space), _settings(space), *_notes(space), BUILT]
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(space: Space) -> str:
    rows = [f"| {_name(spec)} | {_size(spec)} | {_licences(spec)} |" for spec in space.models]
    adapters = [space.registry.adapter(name) for name in space.profile.adapters]
    offered = "\n".join(f"- **{adapter.name}** ({adapter.licence}): {adapter.about}" for adapter in adapters)
    table = "\n".join(["| model | parameters | licence, as its sources state it |", "| --- | --- | --- |", *rows])
    said = (
        "The code of this Space is Apache-2.0. The models have licences of their own; where sources disagree, both "
        "stand here."
    )
    return f"## Models\n\n{table}\n\n{said}" + (f"\n\nAdapters in the panels' menus:\n\n{offered}" if offered else "")


def _name(spec: ModelSpec) -> str:
    hub = spec.weights.hub
    return f"[{spec.name}](https://huggingface.co/{hub})" if hub else f"{spec.name}, a tiny stand-in"


def _size(spec: ModelSpec) -> str:
    return f"{spec.parameters / 1e9:.1f} B" if spec.parameters >= 1e9 else f"{spec.parameters / 1e6:.1f} M"


def _licences(spec: ModelSpec) -> str:
    return "; ".join(f"{item.text} ({item.source})" for item in spec.licences)


def _run(space: Space) -> str:
    profile = space.profile
    lines = [f"- hardware: `{profile.hardware}` ({space.hardware})"]
    lines += [f"- {server.name} answers for {space.registry.get(server.serves).name}" for server in space.servers]
    lines += [f"- `{pin.line}` is downloaded while the Space is built" for pin in space.pins]
    return "## How it runs\n\n" + "\n".join(lines)


def _settings(space: Space) -> str:
    rows = [f"| `{item.name}` | variable | `{item.value}` | {item.about} |" for item in space.variables]
    rows += [
        f"| `{item.name}` | secret, {'needed' if item.needed else 'optional'} | | {item.about} |"
        for item in space.secrets
    ]
    return "\n".join(["## Settings of the Space", "", "| name | kind | value | |", "| --- | --- | --- | --- |", *rows])


def _notes(space: Space) -> list[str]:
    notes = [f"- {note}" for note in space.profile.notes]
    return ["\n".join(["## Notes", "", *notes])] if notes else []

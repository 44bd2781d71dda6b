"""The profiles: what a file may say, and what ours say."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import SpaceHardware

from playground.errors import CatalogError, SpaceError
from playground.settings import Settings
from spaces_config.hardware import flavours, hardware
from spaces_config.profile import PROFILES, Profile, find_profile, our_profiles, read_profile

OURS = ("cpu-basic", "one-large-gpu", "remote", "several-gpus", "zero-gpu")
SMALL = """id = "mine"
about = "Mine."
short_description = "Mine"
hardware = "cpu-basic"
models = ["demo-kullm3"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_five_profiles_each_in_a_file_of_its_name() -> None:
    assert our_profiles() == OURS
    assert [find_profile(name).id for name in OURS] == list(OURS)


@pytest.mark.parametrize("flavour", flavours())
def test_huggingface_hub_knows_the_hardware(flavour: str) -> None:
    assert SpaceHardware(flavour).value == flavour
    assert len([device for device in hardware(flavour).devices if device.kind == "cuda"]) == hardware(flavour).gpus


def test_gpus_come_before_the_cpu_and_report_less_than_they_are_named_after() -> None:
    *gpus, cpu = hardware("l4x4").devices
    assert [gpu.name for gpu in gpus] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert all(gpu.total_bytes < 24e9 for gpu in gpus)
    assert (cpu.name, cpu.total_bytes) == ("cpu", 186_000_000_000)
    assert str(hardware("l4x4")) == "4 GPUs of 22.5 GiB, 48 vCPUs, 186 GB"


def test_hardware_that_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(SpaceError, match="Nothing is known here of the hardware 'h100'"):
        hardware("h100")


def test_a_profile_of_ones_own_is_named_by_its_file(tmp_path: Path) -> None:
    profile = find_profile(str(written(tmp_path, SMALL)))
    assert (profile.id, profile.title, profile.quantise) == ("mine", "Krutrim and KULLM3, side by side", "auto")


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SpaceError, match="no profile 'zero', only cpu-basic, one-large-gpu"):
        find_profile("zero")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("gpu = 1", "line 6: unknown key `gpu`"),
        ('color_from = "teal"', "line 6: `color_from`"),
        ('python_version = "2.7"', "line 6: `python_version`"),
        ('torch = "newest"', "line 6: `torch`"),
        ("contexts = 0", "line 6: `contexts`"),
        ('quantise = "2-bit"', "line 6: `quantise`"),
        ("[limits]\nplaces = 0", "line 7: `limits.places`"),
        ('[[preload]]\nmodel = "kullm3"\nfiles = "some"', "line 8: `preload.0.files`"),
        ('[[secrets]]\nname = "lower"\nabout = "A"', "line 7: `secrets.0.name`"),
        ("sleep_time_s = 299", "line 6: `sleep_time_s`: give 300 seconds or more, or -1 for never"),
        ('startup_duration_timeout = "long"', "line 6: `startup_duration_timeout`"),
    ],
)
def test_a_wrong_file_is_told_with_key_and_line(tmp_path: Path, line: str, sentence: str) -> None:
    path = written(tmp_path, SMALL + line + "\n")
    with pytest.raises(CatalogError) as caught:
        read_profile(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"The profile .* cannot be read"):
        read_profile(tmp_path / "none.toml")
    with pytest.raises(CatalogError, match="is not valid TOML"):
        read_profile(written(tmp_path, "id ="))
    with pytest.raises(CatalogError, match="the key `hardware` is missing"):
        read_profile(written(tmp_path, SMALL.replace('hardware = "cpu-basic"\n', "")))


def test_a_profile_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        find_profile("cpu-basic").id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", OURS)
def test_the_app_reads_the_options_as_the_profile_means_them(name: str) -> None:
    profile = find_profile(name)
    settings = Settings.read([], {"SPACE_ID": "me/space", "PLAYGROUND_OPTIONS": profile.options()})
    assert settings.models == profile.models
    assert (settings.quantise, settings.contexts) == (profile.quantise, profile.contexts)
    assert {limit: getattr(settings.limits, limit) for limit in profile.limits} == profile.limits


def test_the_bare_repository_has_the_settings_of_cpu_basic() -> None:
    """Pushed as it is, nobody sets the variable: all but the models, which the app finds for itself, is the same."""
    bare = Settings.read([], {"SPACE_ID": "me/space"})
    profile = Settings.read([], {"SPACE_ID": "me/space", "PLAYGROUND_OPTIONS": find_profile("cpu-basic").options()})
    assert bare.models == ()
    assert {**_fields(profile), "models": ()} == _fields(bare)


def _fields(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def test_the_options_hold_only_what_the_app_would_not_do_by_itself() -> None:
    assert find_profile("cpu-basic").options() == "--models demo-krutrim,demo-kullm3"


def test_servers_become_catalog_files_of_the_options() -> None:
    options = find_profile("remote").options(["servers/my server.toml"])
    assert "--catalog 'servers/my server.toml'" in options


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_says_what_the_hub_will_show(path: Path) -> None:
    profile: Profile = read_profile(path)
    assert len(profile.short_description) <= 60
    assert profile.about.endswith(".")
    assert all(secret.about.endswith(".") for secret in profile.secrets)

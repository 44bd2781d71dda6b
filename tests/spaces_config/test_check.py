"""The check before anything is uploaded: each profile passes it on its hardware, and each fault is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from a_space import a_space, built, server_file

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.engines.zero_gpu.capacity import GRANT, grant_options
from playground.placement.plan import PlanOptions
from playground.placement.planner import plan
from playground.settings import Settings
from spaces_config.build import build
from spaces_config.check import check
from spaces_config.pins import Pin
from spaces_config.profile import Preload, our_profiles
from spaces_config.space import Space, load_registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def grown(space: Space, factor: float) -> Space:
    """The same Space, with models that have become larger: more layers, more bytes."""

    def larger(spec: ModelSpec) -> ModelSpec:
        weights = spec.weights.model_copy(update={"bytes": int(spec.weights.bytes * factor)})
        layers = spec.dimensions.model_copy(update={"layers": int(spec.dimensions.layers * factor)})
        parameters = int(spec.parameters * factor)
        return spec.model_copy(update={"weights": weights, "dimensions": layers, "parameters": parameters})

    specs = [larger(spec) for spec in space.registry]
    registry = Registry(specs, space.registry.adapters(), space.registry.servers())
    return Space(space.profile, registry, space.pins, space.server_files)


@pytest.mark.parametrize("name", our_profiles())
def test_each_of_our_profiles_passes(name: str, tmp_path: Path) -> None:
    space, out = built(name, tmp_path)
    assert check(space, out) == []


@pytest.mark.parametrize(("name", "factor"), [("zero-gpu", 1.5), ("one-large-gpu", 8), ("several-gpus", 2)])
def test_models_that_outgrow_their_hardware_are_told(name: str, factor: float, tmp_path: Path) -> None:
    space, out = built(name, tmp_path)
    problems = check(grown(space, factor), out)
    assert problems
    assert all("GB" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "contexts", "gpus"),
    [("cpu-basic", [4, 4], 0), ("zero-gpu", [2, 2], 1), ("one-large-gpu", [4, 4], 1), ("several-gpus", [4, 1, 4], 4)],
)
def test_where_the_planner_puts_each_profiles_models(name: str, contexts: list[int], gpus: int, tmp_path: Path) -> None:
    """Whole precision everywhere; this changes when a model, the planner's arithmetic or the hardware does."""
    space = a_space(name, tmp_path)
    settings = Settings.read([], space.environment() if not space.server_files else {})
    options = PlanOptions(settings.contexts, settings.quantise, settings.offload, space.quantises)
    placements = plan(space.models, space.hardware.devices, options).placements
    assert [place.kv_tokens // spec.context_length for place, spec in zip(placements, space.models, strict=True)] == (
        contexts
    )
    assert {place.quantisation for place in placements} == {"none"}
    used = {share.device for place in placements for share in place.shares}
    assert len(used - {"cpu"}) == gpus
    assert ("cpu" in used) is (gpus == 0)


def test_zero_gpu_is_checked_with_what_the_app_plans_for_there(tmp_path: Path) -> None:
    """Some of the card stays free for adapters, and nothing is quantised, whatever the profile says of it."""
    space, out = built("zero-gpu", tmp_path)
    placements = plan(space.models, [GRANT], grant_options(space.profile.contexts)).placements
    assert all(len(place.shares) == 1 for place in placements)
    three = (*space.profile.models, "kullm-polyglot-12.8b-v2")
    space, out = built("zero-gpu", tmp_path / "three", models=three, quantise="auto")
    (problem,) = check(space, out)
    assert "do not fit together: " in problem
    assert "quantise" not in problem
    assert "bitsandbytes" not in (out / "requirements.txt").read_text()


def test_bits_on_zero_gpu_are_refused_as_the_app_refuses_them(tmp_path: Path) -> None:
    space, out = built("zero-gpu", tmp_path, quantise="4-bit")
    (problem,) = check(space, out)
    assert problem.startswith("On ZeroGPU weights are neither quantised nor offloaded")


def test_what_a_server_has_takes_no_room_of_the_space(tmp_path: Path) -> None:
    server = server_file(tmp_path / "given", "kullm3")
    changes = {"models": ("demo-krutrim", "kullm3"), "adapters": ("krutrim-casual", "krutrim-formal")}
    alone, out = built("cpu-basic", tmp_path, **changes)
    assert any("do not fit together" in problem for problem in check(alone, out))
    space = Space(alone.profile, load_registry([server]), (), (server,))
    build(space, out)
    assert check(space, out) == []


def test_zero_gpu_wants_its_own_python_and_torch(tmp_path: Path) -> None:
    space, out = built("one-large-gpu", tmp_path, hardware="zero-a10g")
    assert check(space, out) == [
        "README.md: on ZeroGPU the code runs with Python 3.12.12, not 3.11.",
        "requirements.txt: ZeroGPU takes torch 2.8.0, 2.9.1, 2.10.0, 2.11.0, not 2.13.0.",
    ]


@pytest.mark.parametrize("version", ["3.8", "3.10", "3.10.13"])
def test_a_python_that_cannot_run_the_code_is_told(version: str, tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path, python_version=version)
    assert check(space, out) == [f"README.md: the code needs Python >=3.11, not {version}."]


def test_of_the_pythons_that_zero_gpu_takes_only_those_that_run_the_code_pass(tmp_path: Path) -> None:
    space, out = built("zero-gpu", tmp_path, python_version="3.10.13")
    assert check(space, out) == ["README.md: on ZeroGPU the code runs with Python 3.12.12, not 3.10.13."]


def test_what_is_no_version_is_told_once(tmp_path: Path) -> None:
    space, out = built("zero-gpu", tmp_path, python_version="3")
    (problem,) = check(space, out)
    assert "'python_version' must be a version" in problem


def test_hardware_that_is_too_small_is_told_with_what_would_help(tmp_path: Path) -> None:
    space, out = built("several-gpus", tmp_path, hardware="t4-small")
    placement, disk = check(space, out)
    assert "GB" in placement
    assert disk == "The models take 62 GB of the disk, and t4-small has 50 GB."


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    (out / "README.md").write_text((out / "README.md").read_text().replace("sdk: gradio", "sdk: docker"))
    (out / "requirements.txt").write_text("gradio==5.0.0\ntorch==2.13.0\n")
    (out / "app.py").unlink()
    text = "\n".join(check(space, out))
    assert "'sdk' must be one of gradio" in text
    assert "there is no app.py" in text
    assert "says Gradio 6.31.0, and requirements.txt 5.0.0" in text
    assert "gradio is 5.0.0, and the code is made for 6.31.0" in text
    assert "transformers is missing" in text


def test_a_card_without_front_matter_is_told(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    (out / "README.md").write_text("---\ntitle: [\n---\n")
    assert any("no front matter that can be read" in problem for problem in check(space, out))


def test_options_that_the_app_would_refuse_are_told_in_its_words(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path, limits={"patience": 3})
    (problem,) = check(space, out)
    assert problem.startswith("app.py would not start with its options: app.py: error: argument --limit: ")
    assert "'patience'" in problem


def test_a_server_file_that_is_not_there_is_told_as_the_app_would(tmp_path: Path) -> None:
    space, out = built("remote", tmp_path)
    (out / "servers" / "kullm3.toml").unlink()
    (problem,) = check(space, out)
    assert "there is no file 'servers/kullm3.toml'" in problem


def test_adapters_are_those_of_the_models(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path, adapters=("krutrim-casual", "krutrim-formal", "kullm3-casual"))
    assert check(space, out) == ["The menus offer the adapter kullm3-formal too: name it."]
    space, out = built("zero-gpu", tmp_path / "zero", adapters=("kullm3-formal",))
    assert check(space, out) == ["The adapter kullm3-formal fits none of the models that are shown."]


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    wrong = Space(space.profile.model_copy(update={"models": ("kullm4",)}), space.registry)
    assert any("There is no model 'kullm4' in the catalog." in problem for problem in check(wrong, out))


def test_only_models_of_the_catalog_that_are_shown_are_preloaded(tmp_path: Path) -> None:
    space, out = built("cpu-basic", tmp_path)
    with_one = space.profile.model_copy(update={"preload": (Preload(model="kullm3"), Preload(model="gpt-5"))})
    problems = check(Space(with_one, space.registry), out)
    assert any("There is no model 'gpt-5'" in problem for problem in problems)


def test_the_app_must_look_for_the_commit_that_is_preloaded(tmp_path: Path) -> None:
    space = a_space("zero-gpu", tmp_path)
    pinned = Space(space.profile, space.registry, tuple(Pin(pin.spec, COMMIT) for pin in space.pins))
    out = tmp_path / "out"
    build(pinned, out)
    assert check(pinned, out) == []
    build(space, out)
    assert check(pinned, out) == [f"{pin.line} is preloaded, and the app would look for main." for pin in pinned.pins]


def test_licences_must_be_named(tmp_path: Path) -> None:
    space, out = built("zero-gpu", tmp_path)
    card = out / "README.md"
    card.write_text(card.read_text("utf-8").replace("CC BY-NC 4.0", "free"), "utf-8")
    assert check(space, out) == ["README.md does not name the licence of KULLM3, CC BY-NC 4.0."]


def test_models_elsewhere_need_a_server_each(tmp_path: Path) -> None:
    space, out = built("remote", tmp_path)
    servers = space.server_files[:1]
    one = Space(space.profile, load_registry(servers), space.pins, servers)
    build(one, out)
    (problem,) = check(one, out)
    assert problem.startswith("No server answers for kullm3: give one with --server FILE")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://gpu.example.com:8000/v1", "at the ports 80, 443 and 8080 only, not at 8000"),
        ("http://gpu.example.com/v1", "the key would travel for everybody to read"),
        ("https://192.168.1.5/v1", "an address of your own network"),
        ("https://127.0.0.1/v1", "an address of your own network"),
        ("https://localhost/v1", "an address of your own network"),
        ("https://gpu/v1", "an address of your own network"),
        ("https://gpu.local/v1", "an address of your own network"),
        ("https://gpu.corp.internal/v1", "an address of your own network"),
        ("https://gpu.lan./v1", "an address of your own network"),
        ("https://GPU.home.arpa/v1", "an address of your own network"),
        ("https://gpu.localhost/v1", "an address of your own network"),
    ],
)
def test_servers_that_a_space_cannot_reach_or_would_tell_its_key_are_told(
    url: str, sentence: str, tmp_path: Path
) -> None:
    server = server_file(tmp_path / "given", "demo-kullm3", url=f'"{url}"')
    space = a_space("cpu-basic", tmp_path)
    with_server = Space(space.profile, load_registry([server]), (), (server,))
    build(with_server, tmp_path / "out")
    (problem,) = check(with_server, tmp_path / "out")
    assert sentence in problem

"""The command line and the environment: what they mean, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from playground.command_line import Quantise, parser
from playground.limits import OPEN, PUBLIC, Limits
from playground.placement.plan import PlanOptions, QuantisationChoice
from playground.settings import Settings, read_secret


def test_the_defaults_are_for_this_machine_alone() -> None:
    settings = Settings.read([], {})
    assert (settings.host, settings.port, settings.models, settings.catalogs) == ("127.0.0.1", None, (), ())


def test_everything_can_be_given(tmp_path: Path) -> None:
    catalog = tmp_path / "mine.toml"
    catalog.touch()
    line = ["--models", "a, b,c", "--catalog", str(catalog), "--catalog", str(catalog), "--host", "::1", "--port", "80"]
    settings = Settings.read([*line, "--no-browser"], {"DISPLAY": ":0"})
    alone = {"typed_folders": True, "edit_templates": True, "any_endpoint": True, "own_names_only": True}
    assert settings == Settings(("a", "b", "c"), (catalog, catalog), "::1", 80, open_browser=False, **alone)


def test_folders_of_adapters_may_be_given_several_times(tmp_path: Path) -> None:
    assert Settings.read([], {}).adapters == ()
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
    settings = Settings.read(["--adapters", str(folders[0]), "--adapters", str(folders[1])], {})
    assert settings.adapters == folders


@pytest.mark.parametrize(
    ("line", "environment", "typed"),
    [
        ([], {}, True),
        (["--host", "127.0.0.1"], {}, True),
        (["--host", "localhost"], {}, True),
        (["--host", "::1"], {}, True),
        (["--host", "0.0.0.0"], {}, False),
        (["--host", "::"], {}, False),
        (["--host", "192.168.0.7"], {}, False),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        ([], {"SPACE_ID": "me/it"}, False),
        (["--host", "127.0.0.1"], {"SPACE_ID": "me/it"}, False),
        (["--public"], {}, False),
        (["--limit", "places=4"], {}, False),
        (["--proxies", "1"], {}, False),
        ([], {"PLAYGROUND_USERS": "asha:secret"}, False),
    ],
)
def test_folders_and_templates_may_be_typed_only_where_nobody_else_can_open_the_page(
    line: list[str], environment: dict[str, str], typed: bool
) -> None:
    assert Settings.read(line, environment).typed_folders is typed
    assert Settings.read(line, environment).edit_templates is typed
    assert Settings.read(line, environment).own_names_only is typed
    behind_a_proxy = Settings.read(line, {**environment, "GRADIO_ROOT_PATH": "/playground"})
    typed_there = (behind_a_proxy.own_names_only, behind_a_proxy.typed_folders, behind_a_proxy.any_endpoint)
    assert typed_there == (False, False, False)
    assert Settings.read([*line, "--edit-templates"], environment).edit_templates
    assert Settings.read([*line, "--edit-templates"], environment).typed_folders is typed


@pytest.mark.parametrize(
    ("environment", "cache"),
    [
        ({"HF_HOME": "/data/hf", "XDG_CACHE_HOME": "/other"}, Path("/data/hf")),
        ({"XDG_CACHE_HOME": "/cache"}, Path("/cache/huggingface")),
        ({"HF_HOME": "", "XDG_CACHE_HOME": ""}, Path.home() / ".cache" / "huggingface"),
        ({"HF_HOME": "~/hf"}, Path.home() / "hf"),
        ({}, Path.home() / ".cache" / "huggingface"),
    ],
)
def test_adapters_of_the_hub_are_kept_where_its_other_downloads_are(environment: dict[str, str], cache: Path) -> None:
    store = Settings.read([], environment).adapter_store
    assert store == cache / "assets" / "krutrim-kullm3-playground" / "adapters"


def test_the_placement_is_left_to_the_planner_unless_something_is_asked_of_it() -> None:
    settings = Settings.read([], {})
    assert (settings.quantise, settings.contexts, settings.offload) == ("auto", 4, False)
    settings = Settings.read(["--quantise", "4-bit", "--contexts", "64", "--offload"], {})
    assert (settings.quantise, settings.contexts, settings.offload) == ("4-bit", 64, True)


def test_what_can_be_asked_of_the_placement_is_what_its_options_know() -> None:
    settings, options = Settings(), PlanOptions()
    assert get_args(Quantise) == get_args(QuantisationChoice)
    assert (settings.quantise, settings.contexts, settings.offload) == (
        options.quantisation,
        options.contexts,
        options.offload,
    )


def test_a_desktop_gets_a_browser_and_a_space_is_open_to_all() -> None:
    assert Settings.read([], {"DISPLAY": ":0"}).open_browser
    space = Settings.read([], {"SPACE_ID": "me/it", "DISPLAY": ":0"})
    assert (space.host, space.open_browser) == ("0.0.0.0", False)


def test_gradios_own_variables_are_honoured_below_the_command_line() -> None:
    environment = {"GRADIO_SERVER_NAME": "10.0.0.1", "GRADIO_SERVER_PORT": "7001"}
    settings = Settings.read([], environment)
    assert (settings.host, settings.port) == ("10.0.0.1", 7001)
    settings = Settings.read(["--host", "127.0.0.2", "--port", "7002"], environment)
    assert (settings.host, settings.port) == ("127.0.0.2", 7002)


@pytest.mark.parametrize(
    ("line", "environment", "words"),
    [
        (["--models", ","], {}, "one to 4 model ids"),
        (["--models", "a,b,c,d,e"], {}, "one to 4 model ids"),
        (["--port", "http"], {}, "not 'http'"),
        (["--port", "70000"], {}, "1 to 65535"),
        (["--catalog", "/no/such.toml"], {}, "no file '/no/such.toml'"),
        (["--catalog", "~nobody-here/x"], {}, "no file '~nobody-here/x'"),
        (["--adapters", "/no/such"], {}, "no folder '/no/such'"),
        (["--adapters", __file__], {}, "no folder"),
        (["--adapters", "~nobody-here/x"], {}, "no folder '~nobody-here/x'"),
        ([], {"GRADIO_SERVER_PORT": "x"}, "GRADIO_SERVER_PORT"),
        (["--quantise", "2-bit"], {}, "4-bit"),
        (["--contexts", "0"], {}, "1 to 64, not '0'"),
        (["--contexts", "65"], {}, "1 to 64"),
        (["--contexts", "two"], {}, "not 'two'"),
        (["--share"], {}, "--share"),
        (["--limit", "speed=3"], {}, "no limit 'speed', only prompt_characters, "),
        (["--limit", "places"], {}, "places= and a whole number from 1, or none"),
        (["--limit", "places=0"], {}, "not 'places=0'"),
        (["--limit", "places=many"], {}, "not 'places=many'"),
        (["--proxies", "10"], {}, "0 to 9, not '10'"),
        (["--endpoint", "10.0.0.7:8000"], {}, "such as http://10.0.0.7:8000/v1"),
        (["--endpoint", "file:///etc/passwd"], {}, "not 'file:///etc/passwd'"),
        (["--endpoint", "http://10.0.0.7/v1?key=secret"], {}, "give the base of an API"),
        (["--zero-gpu", "on"], {}, "--zero-gpu"),
        ([], {"PLAYGROUND_OPTIONS": "--models 'a"}, "PLAYGROUND_OPTIONS: no closing quotation"),
        ([], {"PLAYGROUND_OPTIONS": "--share"}, "--share"),
    ],
)
def test_a_bad_value_ends_with_a_sentence(
    line: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        Settings.read(line, environment)
    assert words in capsys.readouterr().err


def test_limits_are_for_strangers_who_come_to_a_space_or_where_it_is_said_so() -> None:
    space = {"SPACE_ID": "me/it"}
    assert Settings.read([], {}).limits == OPEN
    assert Settings.read(["--host", "0.0.0.0"], {}).limits == OPEN
    assert Settings.read(["--public"], {}).limits == PUBLIC
    assert Settings.read([], space).limits == PUBLIC
    assert Settings.read(["--no-public"], space).limits == OPEN


def test_each_limit_can_be_set_and_lifted() -> None:
    assert Settings.read(["--limit", "places=2"], {}).limits == Limits(places=2)
    line = ["--public", "--limit", "places=2", "--limit", "turns=none", "--limit", "places=3"]
    assert Settings.read(line, {}).limits == replace(PUBLIC, places=3, turns=None)
    for limit in fields(Limits):
        assert getattr(Settings.read(["--limit", f"{limit.name}=7"], {}).limits, limit.name) == 7


def test_a_space_stands_behind_a_proxy() -> None:
    assert Settings.read([], {}).proxies == 0
    assert Settings.read([], {"SPACE_ID": "me/it"}).proxies == 1
    assert Settings.read(["--proxies", "0"], {"SPACE_ID": "me/it"}).proxies == 0
    assert Settings.read(["--proxies", "2"], {}).proxies == 2


def test_the_help_says_that_a_listed_server_is_chosen() -> None:
    said = " ".join(parser().format_help().split())
    assert "--endpoint URL a server that may be chosen in a panel" in said


def test_only_listed_servers_may_be_asked_where_others_can_open_the_page() -> None:
    assert Settings.read([], {}).any_endpoint
    for line, environment in ((["--host", "0.0.0.0"], {}), ([], {"SPACE_ID": "me/it"})):
        settings = Settings.read(
            [*line, "--endpoint", "http://10.0.0.7:8000/v1/", "--endpoint", "https://a.b"], environment
        )
        assert not settings.any_endpoint
        assert settings.endpoints == ("http://10.0.0.7:8000/v1", "https://a.b")


def test_the_environments_options_rule_over_those_of_the_command_line() -> None:
    environment = {"PLAYGROUND_OPTIONS": "--models 'c, d' --limit places=5"}
    settings = Settings.read(["--models", "a,b", "--contexts", "2"], environment)
    assert (settings.models, settings.contexts, settings.limits) == (("c", "d"), 2, Limits(places=5))


def test_who_may_open_the_page_is_read_from_the_environment_and_shown_nowhere() -> None:
    settings = Settings.read([], {"PLAYGROUND_USERS": "asha:pass:word, minsu:x ,"})
    assert settings.users == (("asha", "pass:word"), ("minsu", "x"))
    assert "pass:word" not in repr(settings)
    assert Settings.read([], {}).users == ()


@pytest.mark.parametrize("users", ["asha", "asha:", ":word", "asha:word,minsu", ",", " , "])
def test_a_user_without_a_name_or_a_password_is_refused_without_showing_them(
    users: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        Settings.read([], {"PLAYGROUND_USERS": users})
    said = capsys.readouterr().err
    assert "PLAYGROUND_USERS: write name:password" in said
    assert "word" not in said.replace("name:password", "")


@pytest.mark.parametrize(
    ("line", "environment", "way"),
    [
        ([], {}, "off"),
        ([], {"SPACES_ZERO_GPU": "true"}, "on"),
        ([], {"SPACES_ZERO_GPU": "false"}, "off"),
        (["--zero-gpu", "off"], {"SPACES_ZERO_GPU": "1"}, "off"),
        (["--zero-gpu", "rehearse"], {}, "rehearse"),
        (["--zero-gpu", "auto"], {"SPACES_ZERO_GPU": "1"}, "on"),
    ],
)
def test_answers_come_in_grants_where_there_is_a_zero_gpu_or_it_is_rehearsed(
    line: list[str], environment: dict[str, str], way: str
) -> None:
    assert Settings.read(line, environment).zero_gpu == way


def test_a_servers_key_is_read_from_the_environment_and_shown_nowhere() -> None:
    environment = {"MY_KEY": " sk-very-secret ", "EMPTY": " "}
    key = read_secret("MY_KEY", environment)
    assert key is not None
    assert key.get_secret_value() == "sk-very-secret"
    assert "secret" not in f"{key!r} {key}".replace("SecretStr", "")
    assert read_secret("EMPTY", environment) is None
    assert read_secret("NONE", environment) is None

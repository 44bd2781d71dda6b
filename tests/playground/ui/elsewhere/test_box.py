"""What the box "Runs on" shows before anybody opened it, and what a panel says of its place."""

from __future__ import annotations

import pytest
from fakes import FakePool, Script, spec
from markup import read
from pydantic import SecretStr
from server_entries import server_entry

from model_registry.registry import Registry
from playground.engines.elsewhere import Elsewhere
from playground.types import EndpointUse
from playground.ui.elsewhere.box import properties
from playground.ui.elsewhere.place import KeptKey, PanelPlace, first_place, key_for, place_of
from playground.ui.panel import about_place, menu_choices

FAR = "http://10.0.0.7:8000/v1"
REGISTRY = Registry([spec("a"), spec("b")], servers=[server_entry(FAR, "a")])
ENDPOINT = EndpointUse(url="http://10.0.0.8/v1", model="<m>")


@pytest.mark.parametrize(
    ("model_id", "any_endpoint", "is_there"), [("a", False, True), ("b", False, False), ("b", True, True)]
)
def test_where_there_is_nothing_to_choose_there_is_no_box(model_id: str, any_endpoint: bool, is_there: bool) -> None:
    elsewhere = Elsewhere(REGISTRY, any_endpoint=any_endpoint)
    shown = properties(first_place(model_id, elsewhere), elsewhere, True)
    assert shown["box"]["visible"] == is_there


def test_a_place_holds_for_the_model_that_it_was_chosen_for_alone() -> None:
    elsewhere = Elsewhere(REGISTRY)
    chosen = PanelPlace("b", "another server", ENDPOINT)
    assert place_of(chosen, "b", elsewhere) is chosen
    assert place_of(chosen, "a", elsewhere).value == "far"
    assert place_of(PanelPlace("a"), "b", elsewhere) == PanelPlace("b")


def test_the_words_of_a_place() -> None:
    assert PanelPlace("a").words == "this machine"
    assert PanelPlace("a", "another server", ENDPOINT).words == "10.0.0.8 · <m>"


def test_the_line_under_the_menu_says_who_answers_and_not_what_would_be_loaded() -> None:
    pool = FakePool(REGISTRY, {"a": Script(state="download", detail="downloads 21.5 GB")})
    line = read(about_place(REGISTRY.get("a"), PanelPlace(), pool)).text
    assert "Answers come from 10.0.0.7:8000" in line
    assert "21.5" not in line
    assert "Downloads 21.5 GB on the next prompt" in read(about_place(REGISTRY.get("a"), PanelPlace("a"), pool)).text
    assert menu_choices(REGISTRY, pool) == [("A · on a server", "a"), ("B · ready", "b")]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("http://10.0.0.7:8000/v2", True),
        ("https://10.0.0.7:8000/v1", False),
        ("http://10.0.0.7:8001/v1", False),
        ("http://10.0.0.70:8000/v1", False),
    ],
)
def test_a_key_fits_the_server_that_it_was_given_for(url: str, fits: bool) -> None:
    kept = KeptKey(FAR, SecretStr("sk"))
    assert key_for(kept, url).get_secret_value() == ("sk" if fits else "")
    assert "sk" not in repr(kept)

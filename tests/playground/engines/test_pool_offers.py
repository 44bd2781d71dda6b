"""What a page for strangers has loaded: what its operator put there, and nothing else of the catalog or the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import spec
from tiny import write_tiny_model

from model_registry.registry import Registry
from playground.engines.pool import EnginePool
from playground.engines.start import _offered
from playground.errors import PlacementError
from playground.placement.plan import Device
from playground.settings import Settings
from playground.types import GenerationRequest, Message
from playground.ui.panel import menu_choices

PLENTY = Device("cpu", "cpu", 10**12, 10**12)


def never(*_: object) -> object:
    raise AssertionError("nothing may be loaded")


@pytest.fixture
def pool() -> EnginePool:
    return EnginePool(Registry([spec("shown"), spec("hidden")]), [PLENTY], start=never, offered={"shown"})  # type: ignore[arg-type]


async def test_what_is_not_offered_is_neither_listed_nor_loaded(pool: EnginePool) -> None:
    request = GenerationRequest(model_id="hidden", messages=(Message(role="user", content="hi"),))
    assert pool.status("hidden").state == "not_here"
    assert [model_id for _, model_id in menu_choices(pool.registry, pool)] == ["shown"]
    with pytest.raises(PlacementError, match="HIDDEN is not offered on this page: choose another model"):
        pool.expect([request])
    with pytest.raises(PlacementError, match="not offered"):
        await anext(pool.stream(request))
    assert pool.memory()[0].engines == ()
    await pool.close()


def test_strangers_are_offered_the_first_panels_and_the_operators_own_models(tmp_path: Path) -> None:
    mine = write_tiny_model(tmp_path, "mine")
    settings = Settings(catalogs=(mine,))
    registry = Registry.load(mine)
    offered = _offered(settings, registry, ("krutrim", "demo-kullm3"))
    assert offered == {"krutrim-1-instruct", "demo-kullm3", "mine"}


def test_limits_make_a_page_one_for_strangers() -> None:
    assert not Settings.read([], {}).for_strangers
    assert Settings.read([], {"SPACE_ID": "me/it"}).for_strangers
    assert Settings.read(["--limit", "places=2"], {}).for_strangers
    assert not Settings.read(["--no-public"], {"SPACE_ID": "me/it"}).for_strangers

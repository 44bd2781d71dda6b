"""Which engines the settings get: a process each, or grants; and what is put to where grants find it."""

from __future__ import annotations

import logging

import pytest
from adapter_shelf import Shelf
from grant_room import MODELS, library, registry

from playground.engines.elsewhere import Elsewhere
from playground.engines.start import prepare_engines
from playground.engines.zero_gpu.capacity import GRANT, LARGE_BYTES, grant_options
from playground.engines.zero_gpu.place import place
from playground.engines.zero_gpu.pool import ZeroGpuPool
from playground.engines.zero_gpu.rehearsal import Rehearsal
from playground.engines.zero_gpu.start import zero_gpu_pool
from playground.errors import PlacementError, UnknownModelError
from playground.placement.devices import find_device
from playground.placement.planner import plan
from playground.settings import Settings


async def test_a_rehearsal_has_the_models_that_were_named() -> None:
    start = prepare_engines(Settings(zero_gpu="rehearse", models=("demo-kullm3",)))
    pool, models = start(registry())
    assert isinstance(pool, ZeroGpuPool)
    assert models == ("demo-kullm3",)
    assert pool.status("demo-kullm3").state == "ready"
    assert pool.status("demo-krutrim").state == "not_here"
    await pool.close()


@pytest.mark.parametrize("settings", [Settings(quantise="4-bit"), Settings(offload=True)])
def test_what_cannot_be_had_there_is_refused_at_the_start(settings: Settings) -> None:
    on_zero_gpu = Settings(zero_gpu="rehearse", models=MODELS, quantise=settings.quantise, offload=settings.offload)
    with pytest.raises(PlacementError, match="neither quantised nor offloaded"):
        prepare_engines(on_zero_gpu)(registry())


def test_unknown_models_are_named() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean demo-kullm3"):
        prepare_engines(Settings(zero_gpu="rehearse", models=("demo-kulm3",)))(registry())


def test_both_real_models_fit_into_a_large_grant_unquantised() -> None:
    specs = [registry().get("krutrim-1-instruct"), registry().get("kullm3")]
    together = plan(specs, [GRANT], grant_options())
    assert [placement.quantisation for placement in together.placements] == ["none", "none"]
    assert not any(placement.is_spread for placement in together.placements)
    assert sum(placement.total_bytes for placement in together.placements) < GRANT.free_bytes < LARGE_BYTES


def test_models_too_large_for_a_grant_are_refused_before_anything_is_read() -> None:
    specs = [registry().get(model_id) for model_id in ("kullm3", "kullm-polyglot-12.8b", "krutrim-1-instruct")]
    with pytest.raises(PlacementError, match=r"One GPU with 80 GB would hold all at 16 bits\.$") as refused:
        place(specs, GRANT, grant_options(), lambda spec: ())
    for useless in ("quantise", "8-bit", "4-bit", "bitsandbytes", "offload"):
        assert useless not in str(refused.value)


async def test_an_adapter_that_cannot_be_put_there_takes_nothing_else_away(caplog: pytest.LogCaptureFixture) -> None:
    device, decorate = find_device("cpu"), Rehearsal()
    with caplog.at_level(logging.WARNING):
        # The shelf's adapters are inspected, but their files are not there.
        pool = zero_gpu_pool(registry(), ["demo-kullm3"], device, grant_options(), decorate, Shelf())
    assert "KULLM3 stand-in with formal" in caplog.text
    assert pool.status("demo-kullm3").state == "ready"
    await pool.close()


async def test_what_a_server_of_the_catalog_has_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Elsewhere(registry())
    monkeypatch.setattr(served, "servers_of", lambda model_id: ("a server",) if model_id == "kullm3" else ())
    device, options = find_device("cpu"), grant_options()
    pool = zero_gpu_pool(registry(), ["demo-krutrim", "kullm3"], device, options, Rehearsal(), library(), served)
    assert pool.status("kullm3").state == "not_here"
    assert pool.status("demo-krutrim").state == "ready"
    await pool.close()

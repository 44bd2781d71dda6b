"""The endpoints on scripted engines, and a client for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import FakePool, Script, spec
from gradio_client import Client
from serving import serving

from model_registry.registry import Registry
from playground.adapters.facts import AdapterChoice
from playground.errors import AdapterError, OutOfMemoryError
from playground.types import LoadProgress

LOADING = LoadProgress("weights", 1, 2)


@pytest.fixture(scope="module")
def pool() -> FakePool:
    alpha = spec("alpha", default_system="You are Alpha.")
    models = Registry([alpha, spec("beta", stand_in_for="alpha"), spec("slow"), spec("broken")])
    scripts = {
        "alpha": Script(
            ["He", "llo"],
            loading=[LOADING],
            choices=[AdapterChoice("formal", "Formal", "Says sir.")],
            refusals={"owner/bad": AdapterError("adapter_config.json: no.")},
            warnings={"owner/odd": ["It names another base."]},
        ),
        "slow": Script([], hangs=True),
        "broken": Script(["so "], error=OutOfMemoryError("The GPU is full: choose a smaller model.")),
    }
    return FakePool(models, scripts)


@pytest.fixture(scope="module")
def client(pool: FakePool) -> Iterator[Client]:
    with serving(pool, ["alpha", "beta"]) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        yield client
        client.close()

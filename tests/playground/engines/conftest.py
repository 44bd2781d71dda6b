"""Fixtures for tests that hold both engines of this process to the same behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_room import KINDS, Kind, Room

PEFTS_OWN = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
"""PEFT 0.21 asks transformers 5.23 in the old way where tests write adapters with it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "adapt" in item.path.name:
            item.add_marker(pytest.mark.filterwarnings(PEFTS_OWN))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def room(kind: Kind) -> AsyncIterator[Room]:
    """An engine for two answers at once, whose steps wait at a gate where a test closes it."""
    room = Room(kind, max_batch_tokens=32, max_concurrent=2, max_waiting=62)
    yield room
    room.gate.open()
    await room.engine.close()

"""Fixtures for tests that hold both engines of this process to the same behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from engine_room import KINDS, Kind, Room


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

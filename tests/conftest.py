"""What all tests share: one thread for models this small, patience, and a heap that is quick to look through."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Several threads would spend their time waiting for each other. Engines' own processes count for themselves.

    A busy machine fails no property: an example may take its time, and so may making one.
    """
    torch.set_num_threads(1)
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays to the end: who looks for garbage, or for tensors, need not look there each time."""
    gc.collect()
    gc.freeze()

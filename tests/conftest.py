"""What all tests share: one thread for models this small, and a heap that is quick to look through."""

from __future__ import annotations

import gc

import pytest
import torch


def pytest_configure() -> None:
    """Several threads would spend their time waiting for each other. Engines' own processes count for themselves."""
    torch.set_num_threads(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays to the end: who looks for garbage, or for tensors, need not look there each time."""
    gc.collect()
    gc.freeze()

"""The same under the decorator that a Space has, where its package is installed; the GPU alone is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]
PATIENCE_S = 300

pytestmark = pytest.mark.skipif(find_spec("spaces") is None, reason="the package `spaces` is not installed")


def test_turns_stops_and_refusals_under_the_decorator_of_spaces() -> None:
    command = [sys.executable, str(TESTS / "answer_on_spaces.py")]
    path = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=path)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    first, again = told["idle False"], told["idle True"]
    hindi, korean, casual = first["answers"]
    assert all([hindi, korean, casual])
    assert korean != casual
    assert again["answers"] == first["answers"]
    assert first["calls"] == ["/schedule", "/allow", "/release"]
    assert again["calls"] == ["/schedule", "/release"], "the same worker, with its engines"
    assert told["stopped"] == ["/schedule", "/release"]
    assert "could not tell whose quota to take" in told["refused"]

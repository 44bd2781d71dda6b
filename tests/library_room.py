"""What the tests of the library of adapters share; its fixtures stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from local_hub import commit_of

from model_registry.spec import ModelSpec
from playground.adapters.library import AdapterLibrary
from playground.errors import AdapterError

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"
COMMIT = commit_of("main")
SENTENCE_SIZE = 600

Make = Callable[..., AdapterLibrary]


def refusal(library: AdapterLibrary, spec: ModelSpec, text: str, revision: str = "") -> str:
    with pytest.raises(AdapterError) as caught:
        library.check(spec, text, revision)
    assert len(str(caught.value)) < SENTENCE_SIZE
    str(caught.value).encode()
    return str(caught.value)

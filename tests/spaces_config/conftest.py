"""A Hub on loopback that knows the real models' repositories, and what brings Spaces to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from upload_hub import KRUTRIM, KULLM3, UploadHub

FILES = [
    "README.md",
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with UploadHub(models={KRUTRIM: FILES, KULLM3: FILES}) as hub:
        yield hub

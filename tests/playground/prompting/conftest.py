"""The catalog, and a tokenizer of bytes, for the tests of templates and of the encoder."""

from __future__ import annotations

import pytest
from tiny import byte_tokenizer
from transformers import PreTrainedTokenizerFast

from model_registry.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(adds_bos=True)

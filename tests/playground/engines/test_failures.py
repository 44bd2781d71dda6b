"""What an exception in a step means, and what it may keep alive."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from playground.engines.decoding.failures import drop_frames, engine_error
from playground.errors import OutOfMemoryError


def failed_step(chained: bool) -> tuple[Exception, weakref.ref[torch.Tensor]]:
    """An error whose frames, or those of the error before it, hold a tensor."""

    def step() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise MemoryError

    held: list[weakref.ref[torch.Tensor]] = []
    try:
        try:
            step()
        except MemoryError as error:
            if not chained:
                raise
            raise RuntimeError("a layer failed") from error
    except Exception as error:
        return error, held[0]


@pytest.mark.parametrize("chained", [False, True])
def test_an_error_keeps_no_tensor_of_its_step(chained: bool) -> None:
    error, tensor = failed_step(chained)
    gc.collect()
    assert tensor() is not None
    drop_frames(error)
    gc.collect()
    assert tensor() is None


def test_nor_does_the_sentence_made_of_it() -> None:
    error, tensor = failed_step(chained=True)
    sentence = engine_error(error)
    gc.collect()
    assert tensor() is None
    assert isinstance(sentence, OutOfMemoryError)
    assert sentence.__cause__ is error

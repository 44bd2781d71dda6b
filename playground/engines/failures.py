"""What an exception in a step of a model means to the user.

The one place where the errors of torch and transformers at generation time become ours; both token loops use it.
"""

from __future__ import annotations

import torch

from playground.errors import EngineError, OutOfMemoryError


def engine_error(error: Exception) -> EngineError:
    """The sentence for whoever asked. The error's traceback is dropped: its frames would keep the step's tensors."""
    error.__traceback__ = None
    mapped: EngineError
    if is_memory(error):
        mapped = OutOfMemoryError(
            "The device is full: stop other answers, shorten the prompt or the answer, and try again."
        )
    else:
        mapped = EngineError(f"The engine failed: {first_line(error)}. Try again; the log has the details.")
    mapped.__cause__ = error
    return mapped


def is_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left."""
    # On the CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def first_line(error: Exception) -> str:
    """What the error says, as the middle of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

"""What an exception in a step of a model means to the user.

The one place where the errors of torch and transformers at generation time become ours; both token loops use it.
"""

from __future__ import annotations

import torch

from playground.errors import EngineError, OutOfMemoryError

SIGNS = ("can't allocate memory", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def engine_error(error: Exception) -> EngineError:
    """The sentence for whoever asked; see `drop_frames`."""
    drop_frames(error)
    mapped: EngineError
    if is_memory(error):
        mapped = OutOfMemoryError(
            "The device is full: stop other answers, shorten the prompt or the answer, and try again."
        )
    else:
        mapped = EngineError(f"The engine failed: {first_line(error)}. Try again; the log has the details.")
    mapped.__cause__ = error
    return mapped


def drop_frames(error: BaseException | None) -> None:
    """Forget the tracebacks of an error and of those that led to it: their frames would keep the step's tensors."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def is_memory(error: BaseException | None) -> bool:
    """Whether a device or the machine had no memory left, here or in an error that led to this one."""
    while error is not None:
        # On the CPU torch raises a plain RuntimeError, and so do CUDA's libraries.
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_line(error: Exception) -> str:
    """What the error says, as the middle of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

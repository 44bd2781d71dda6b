"""CUDA graphs and streams, played on the CPU: what transformers 5.23 and our engine do with them, without a GPU.

A recording keeps every tensor operation of a step with its very tensors, and a replay does them again in place, so
whatever Python decided is frozen and addresses stay, as in a CUDA graph; an operation that would have to wait for a
value fails. Streams do at once what they are given, which is one of the orders that a GPU may choose.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.generation.continuous_batching import initialization, input_outputs, model_runner

WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2", "aten.is_nonzero")


class Recording(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph, and for the context in which one is captured."""

    made: list[Recording]

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0
        self.thread = threading.get_ident()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(func).startswith(WAITING), f"{func} cannot be recorded: it waits for a value"
        out = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, out in self.steps:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def reset(self) -> None:
        self.steps = []


class Instant:
    """A stream or an event where everything is over at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def record_event(self, event: Instant) -> None:
        pass

    def wait_event(self, event: Instant) -> None:
        pass


def play_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """From here on the CPU has graphs and streams; returns the list to which recordings are added."""
    recordings: list[Recording] = []

    def create() -> Recording:
        recordings.append(Recording())
        return recordings[-1]

    monkeypatch.setattr(initialization, "get_accelerator_graph_name", lambda: "CUDAGraph")
    monkeypatch.setattr(model_runner, "get_memory_pools", lambda: (None, 0))
    monkeypatch.setattr(model_runner, "memory_pool_context", lambda pool: nullcontext())
    monkeypatch.setattr(model_runner, "create_accelerator_graph", create)
    monkeypatch.setattr(model_runner, "accelerator_graph_capture_context", lambda graph, stream, pool: graph)
    monkeypatch.setattr(input_outputs, "create_device_stream", Instant)
    monkeypatch.setattr(input_outputs.ContinuousBatchingAsyncIOs, "_supported_device_types", ("cpu",))
    monkeypatch.setattr(torch, "Event", Instant)
    for module in (input_outputs, model_runner):
        monkeypatch.setattr(module, "stream_context", lambda stream: nullcontext())
    monkeypatch.setattr("playground.engines.decoding.seeded_sampling.stream_context", lambda stream: nullcontext())
    return recordings

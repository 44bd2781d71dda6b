"""How a task gets the GPU: ZeroGPU's own decorator, or the rehearsal of it.

`spaces` must be imported before torch and before gradio, so the composition root makes one of these first of all.
Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Literal, cast

from playground.engines.zero_gpu.turn import Duration, Task, require_plain_generator

Decorate = Callable[[Task, Duration], Task]
"""Gives a task that runs where the GPU is, when it is called here.

Raises:
    TypeError: the task is no plain generator function.
"""


def gpu_decorator(mode: Literal["on", "rehearse"]) -> Decorate:
    """To be called before anything imports torch or gradio."""
    if mode == "on":
        return spaces_gpu()
    from playground.engines.zero_gpu.rehearsal import Rehearsal

    return Rehearsal()


def spaces_gpu() -> Decorate:
    """ZeroGPU's decorator. Off ZeroGPU it gives the task back as it is."""
    spaces = import_module("spaces")

    def decorate(task: Task, duration: Duration) -> Task:
        require_plain_generator(task)
        return cast(Task, spaces.GPU(task, duration=duration))

    return decorate

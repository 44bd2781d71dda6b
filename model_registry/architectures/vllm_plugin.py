"""Lets vLLM serve Krutrim-1: an entry point (`vllm.general_plugins`) that vLLM calls in each of its processes.

Needs no more of the playground than this package. Does nothing for vLLM where that is not installed. A folder for it
comes from `python -m model_registry export`; see docs/serving.md.
"""

from __future__ import annotations

from model_registry.architectures import krutrim

ON_VLLM = "model_registry.architectures.krutrim_on_vllm:KrutrimOnVllm"
"""Named and not imported: vLLM looks at it in a process of its own first, before CUDA is touched."""


def register() -> None:
    """Makes transformers know `model_type: "krutrim"` and vLLM the architecture `KrutrimForCausalLM`.

    May be called again, as vLLM does.
    """
    krutrim.register()
    try:
        from vllm import ModelRegistry
    except ImportError:
        return
    ModelRegistry.register_model(krutrim.KrutrimForCausalLM.__name__, ON_VLLM)

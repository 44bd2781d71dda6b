"""Weights in 8 or 4 bits, by bitsandbytes 0.50, which is an optional extra.

Asked by the loader for what transformers needs to know. Imports no torch before it must. The head and tied embeddings
stay in 16 bits, as transformers leaves them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from playground.errors import LoadError
from playground.placement.plan import Placement, Quantisation
from playground.placement.quantising import INSTALL, quantisation_available

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig

TALKATIVE = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")
"""The first says at every layer of every step that 8-bit arithmetic rounds bfloat16 to float16; the second that it
could fetch a faster kernel from the Hub."""


def recordable(quantisation: Quantisation) -> bool:
    """Whether steps can be CUDA graphs: LLM.int8 asks the GPU at every layer which columns have outliers."""
    return quantisation != "8-bit"


def quantisation_config(placement: Placement, name: str) -> BitsAndBytesConfig | None:
    """What transformers is to do to the weights while it loads them; None where they stay as they are.

    4 bits are nf4 with double quantisation. 8 bits are LLM.int8, which computes columns with outliers in 16 bits; which
    these are depends on the whole batch, so an answer may differ by rounding with what else is being answered.

    Args:
        placement: says the quantisation, and the dtype of the arithmetic.
        name: the model's, for the sentence.

    Raises:
        LoadError: bitsandbytes is not installed.
    """
    if placement.quantisation == "none":
        return None
    if not quantisation_available():
        raise LoadError(
            f"{name} was to be loaded with {placement.quantisation} weights, for which bitsandbytes is missing: "
            f"install it with `{INSTALL}` and start again, or start with --quantise none."
        )
    from transformers import BitsAndBytesConfig

    for logger in TALKATIVE:
        logging.getLogger(logger).setLevel(logging.ERROR)
    if placement.quantisation == "8-bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=placement.dtype,
    )


def misshaped(model: nn.Module) -> Iterator[str]:
    """Names of quantised weights whose shape is not the layer's: transformers 5.23 does not compare these."""
    from torch import nn

    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(layer, nn.Linear) or type(layer) is nn.Linear or weight is None:
            continue
        state = getattr(weight, "quant_state", None)
        shape = weight.shape if state is None else state.shape
        if tuple(shape) != (layer.out_features, layer.in_features):
            yield f"{name}.weight"

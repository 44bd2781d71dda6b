"""What one model takes of a device's memory: weights, KV cache and working memory, from the catalog's figures alone.

A model is embeddings, equal blocks and a head. Quantised, only the matrices of the blocks shrink, as bitsandbytes does
it: embeddings, head, norms, KV cache and arithmetic keep 16 bits. Used by the search for a place. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_registry.spec import Dtype, ModelSpec, WeightBits
from playground.placement.plan import Quantisation, Share

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

QUANTISED_BYTES = {"8-bit": 1.0, "4-bit": 0.52}
"""Bytes for a parameter of a block. 4-bit: a half, and for every 64 an 8-bit scale, which share a float32 by 256 (nf4
with double quantisation, 0.516 in all)."""

BYTES_BESIDE = 6
"""Bytes for each column of a quantised matrix: its float32 scale at 8 bits, and norms and biases, which stay at 16."""

BATCH_TOKENS = 512
"""Tokens of one step: longer prompts are read in pieces of this size."""

GPU_PROCESS_BYTES = 700_000_000
"""What an engine's process takes of a GPU before it computes: the CUDA context, kernels, cuBLAS workspaces, and what
PyTorch's allocator rounds up."""

CPU_PROCESS_BYTES = 500_000_000
"""What an engine's process takes of the CPU's memory beside the model: Python, torch, transformers."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """One model in one precision on one kind of device; all sizes in bytes.

    first_bytes: what stands with the first block: the embeddings, which are the head as well where they are tied.
    last_bytes: what stands with the last block: the head, where it has weights of its own.
    kv_bytes: KV cache of one full context in one block.
    process_bytes, batch_bytes, step_bytes: working memory of every device with a part of the model: the process itself,
        the activations of a batch, and what attention needs beside them for each full context.
    """

    dtype: Dtype
    layers: int
    block_bytes: int
    first_bytes: int
    last_bytes: int
    kv_bytes: int
    process_bytes: int
    batch_bytes: int
    step_bytes: int

    @property
    def visit_bytes(self) -> int:
        """Of weights that lie in the CPU's memory, the largest that is on the GPU at a time."""
        return max(self.block_bytes, self.last_bytes)

    def working_bytes(self, contexts: int) -> int:
        return self.process_bytes + self.steps_bytes(contexts)

    def steps_bytes(self, contexts: int) -> int:
        """Without the process: what the steps of each engine take in it."""
        return self.batch_bytes + contexts * self.step_bytes

    def layer_bytes(self, contexts: int) -> int:
        """One block with its KV cache."""
        return self.block_bytes + contexts * self.kv_bytes

    def whole_bytes(self, contexts: int) -> int:
        """The model on one device, all told."""
        ends = self.first_bytes + self.last_bytes
        return ends + self.layers * self.layer_bytes(contexts) + self.working_bytes(contexts)

    def share(self, device: str, first: int, last: int, contexts: int) -> Share:
        """Blocks `first` to `last`, both included, on a device, with what stands beside them."""
        count = last - first + 1
        weights = count * self.block_bytes
        weights += self.first_bytes if first == 0 else 0
        weights += self.last_bytes if last == self.layers - 1 else 0
        return Share(device, first, last, weights, count * contexts * self.kv_bytes, self.working_bytes(contexts))

    def offloaded_shares(self, gpu: str, cpu: str, layers_on_gpu: int, contexts: int) -> tuple[Share, Share]:
        """The first blocks on a GPU, the others in the CPU's memory.

        The GPU computes all of them, so it holds the whole KV cache, and room for one block, or the head, on a visit.
        """
        kv = self.layers * contexts * self.kv_bytes
        weights = self.first_bytes + layers_on_gpu * self.block_bytes
        working = self.working_bytes(contexts) + self.visit_bytes
        away = (self.layers - layers_on_gpu) * self.block_bytes + self.last_bytes
        here = Share(gpu, 0, layers_on_gpu - 1, weights, kv, working)
        return here, Share(cpu, layers_on_gpu, self.layers - 1, away, 0, CPU_PROCESS_BYTES)


def footprint(spec: ModelSpec, quantisation: Quantisation = "none", kind: Literal["cuda", "cpu"] = "cuda") -> Footprint:
    """What `spec` takes on a GPU, or on the CPU.

    CPUs have no fast 16-bit arithmetic, and float16 overflows where a GPU kernel would accumulate in 32 bits: there
    everything is float32.
    """
    dtype: Dtype = spec.dtype if kind == "cuda" else "float32"
    size, sizes = BYTES[dtype], spec.dimensions
    table = sizes.vocab_size * sizes.hidden_size
    head = 0 if sizes.tied_embeddings else table
    block = -(-max(spec.parameters - table - head, 1) // sizes.layers)
    # A quantised matrix is written out at 16 bits to be multiplied with a batch; none is more than half a block.
    visit = 0 if quantisation == "none" else block * size // 2
    process = GPU_PROCESS_BYTES if kind == "cuda" else CPU_PROCESS_BYTES
    return Footprint(
        dtype=dtype,
        layers=sizes.layers,
        block_bytes=block * size if quantisation == "none" else _quantised_bytes(block, quantisation, spec),
        first_bytes=table * size,
        last_bytes=head * size,
        kv_bytes=spec.context_length * sizes.kv_bytes_per_token(size) // sizes.layers,
        process_bytes=process,
        batch_bytes=visit + _activation_bytes(spec, block, size),
        step_bytes=_attention_bytes(spec, size),
    )


def _quantised_bytes(block: int, quantisation: WeightBits, spec: ModelSpec) -> int:
    return round(block * (QUANTISED_BYTES[quantisation] + BYTES_BESIDE / spec.dimensions.hidden_size))


def _activation_bytes(spec: ModelSpec, block: int, size: int) -> int:
    """Of a batch: a value for each column of a block's matrices, and the logits, once more in float32."""
    columns = block // spec.dimensions.hidden_size
    return BATCH_TOKENS * (columns * size + spec.dimensions.vocab_size * (size + 4))


def _attention_bytes(spec: ModelSpec, size: int) -> int:
    """Of one full context: its keys and values, gathered from the cache and repeated for every head, and the mask."""
    sizes = spec.dimensions
    gathered = (2 * sizes.heads + sizes.kv_heads) * (sizes.cache_head_dim or sizes.head_dim)
    masks = 2 * BATCH_TOKENS  # one for the step that runs, one for the step that is prepared meanwhile
    return spec.context_length * (gathered + masks) * size

"""An allocator for imagined GPUs: puts the real architectures, at their real sizes, where a placement says.

Shares no arithmetic with the planner. It builds the models on the meta device, walks their tensors block by block,
stores Linear weights as bitsandbytes would, adds the KV cache that the model's own config asks for, and a process of
its own for every model and device; a device that is asked for more than it has raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from model_registry.spec import ModelSpec
from playground.placement.plan import Device, Placement, PlacementPlan, Quantisation, Share

GRAIN = 512
"""PyTorch's allocator hands out multiples of this many bytes."""

CUDA_CONTEXT = 500_000_000
PYTHON_PROCESS = 400_000_000
BATCH_TOKENS = 512
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class DeviceFullError(Exception):
    pass


class Memory:
    """What is free on each device."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.free = {device.name: device.free_bytes for device in devices}
        self.taken: Counter[str] = Counter()

    def take(self, device: str, size: int) -> None:
        size = -(-size // GRAIN) * GRAIN
        self.taken[device] += size
        if self.taken[device] > self.free[device]:
            raise DeviceFullError(f"{device}: {self.taken[device] - self.free[device]:,} bytes too many")


def allocate(plan: PlacementPlan, specs: Sequence[ModelSpec], devices: Sequence[Device]) -> Memory:
    """Everything that the plan says, on the devices that it says."""
    memory = Memory(devices)
    for spec in specs:
        place(plan.of(spec.id), spec, memory)
    return memory


def place(placement: Placement, spec: ModelSpec, memory: Memory) -> None:
    model = architecture(spec.id)
    size = BYTES[placement.dtype]
    blocks = blocks_of(model)
    home = {layer: share.device for share in placement.shares for layer in layers_of(share)}
    assert sorted(home) == list(range(len(blocks))), "every layer is placed, and none twice"
    assert [layer for share in placement.shares for layer in layers_of(share)] == sorted(home), "in order"
    offloaded = {layer for layer, device in home.items() if device == "cpu" and placement.is_spread}
    for layer, tensors in enumerate(stored_blocks(spec.id, placement.quantisation, size)):
        for tensor in tensors:
            memory.take(home[layer], tensor)
        memory.take(placement.device if layer in offloaded else home[layer], kv_bytes(model, placement, size))
    for name, numbers in outside(model, blocks):
        first = "wte" in name or "embed" in name
        memory.take(placement.shares[0 if first else -1].device, numbers * size)
    for share in placement.shares:
        for tensor in working(model, share, placement, size):
            memory.take(share.device, tensor)


def place_view(placement: Placement, spec: ModelSpec, rank: int, memory: Memory) -> None:
    """The model with a LoRA adapter on every Linear layer of its blocks, beside its base."""
    model = architecture(spec.id)
    size = BYTES[placement.dtype]
    home = {layer: share.device for share in placement.shares for layer in layers_of(share)}
    offloaded = placement.is_spread and placement.shares[-1].device == "cpu"
    home = dict.fromkeys(home, placement.device) if offloaded else home
    for layer, block in enumerate(blocks_of(model)):
        for module in block.modules():
            if isinstance(module, nn.Linear):
                memory.take(home[layer], rank * module.in_features * size)
                memory.take(home[layer], rank * module.out_features * size)
        memory.take(home[layer], kv_bytes(model, placement, size))
    for device in {*home.values()}:
        share = next(share for share in placement.shares if share.device == device)
        _, *tensors = working(model, share, placement, size)  # less the process
        for tensor in tensors:
            memory.take(device, tensor)


@cache
def linears(model_id: str) -> dict[str, tuple[int, int]]:
    """(out_features, in_features) of every Linear layer in the blocks, by full name."""
    model = architecture(model_id)
    inside = {id(module) for block in blocks_of(model) for module in block.modules()}
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    }


def layers_of(share: Share) -> range:
    return range(share.first_layer, share.last_layer + 1)


@cache
def architecture(model_id: str) -> PreTrainedModel:
    """The real architecture at its real size, without values."""
    with torch.device("meta"):
        if model_id in ("krutrim-1-instruct", "krutrim-1-base"):
            attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 8, "alibi": True, "clip_qkv": 6.0}
            config = KrutrimConfig(
                d_model=4608,
                n_heads=48,
                n_layers=32,
                expansion_ratio=4,
                vocab_size=70400,
                max_seq_len=4096,
                attn_config=attention,
                no_bias=True,
            )
            return KrutrimForCausalLM(config)
        if model_id == "kullm3":
            return LlamaForCausalLM(llama(32000, 4096, 14336, 48, 32, 8, 4096, tied=False))
        if model_id == "smollm2-135m-instruct":
            return LlamaForCausalLM(llama(49152, 576, 1536, 30, 9, 3, 8192, tied=True))
        if model_id == "kullm-polyglot-5.8b-v2":
            return GPTNeoXForCausalLM(polyglot(4096, 28, 16))
        return GPTNeoXForCausalLM(polyglot(5120, 40, 40))


def llama(
    vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, context: int, *, tied: bool
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )


def polyglot(hidden: int, layers: int, heads: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=30080,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    classes = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in classes]


def outside(model: PreTrainedModel, blocks: Sequence[nn.Module]) -> Iterator[tuple[str, int]]:
    """Names and sizes of the tensors that belong to no block; a head that is the embeddings counts once."""
    inside = {id(tensor) for block in blocks for tensor in block.parameters()}
    yield from ((name, tensor.numel()) for name, tensor in model.named_parameters() if id(tensor) not in inside)


@cache
def stored_blocks(model_id: str, quantisation: Quantisation, size: int) -> list[list[int]]:
    return [list(stored(block, quantisation, size)) for block in blocks_of(architecture(model_id))]


def stored(block: nn.Module, quantisation: Quantisation, size: int) -> Iterator[int]:
    """Bytes of each tensor of a block. bitsandbytes takes the weights of nn.Linear, and leaves the rest alone."""
    weights = {id(module.weight): module for module in block.modules() if isinstance(module, nn.Linear)}
    for tensor in block.parameters():
        linear = weights.get(id(tensor)) if quantisation != "none" else None
        yield from [tensor.numel() * size] if linear is None else quantised(linear, quantisation)


def quantised(linear: nn.Linear, quantisation: Quantisation) -> Iterable[int]:
    count = linear.in_features * linear.out_features
    if quantisation == "8-bit":
        return (count, 4 * linear.out_features)  # int8, and a float32 scale for every row
    scales = -(-count // 64)
    # nf4: two weights a byte, an 8-bit scale for 64 of them, a float32 for 256 scales, and the tables of values.
    return (-(-count // 2), scales, 4 * -(-scales // 256), 16 * 4, 256 * 4, 4)


def kv_bytes(model: PreTrainedModel, placement: Placement, size: int) -> int:
    """Keys and values of one block, as wide as transformers' paged cache makes them."""
    width = find_num_key_value_heads(model.config) * find_head_dim(model.config)
    return 2 * width * placement.kv_tokens * size


def working(model: PreTrainedModel, share: Share, placement: Placement, size: int) -> Iterator[int]:
    """A process on that device, and the largest tensors of one step of a batch."""
    if share.device == "cpu":
        yield PYTHON_PROCESS
        if placement.is_spread:
            return
    else:
        yield CUDA_CONTEXT
    widest = max(module.out_features for module in blocks_of(model)[0].modules() if isinstance(module, nn.Linear))
    largest = max(module.weight.numel() for module in blocks_of(model)[0].modules() if isinstance(module, nn.Linear))
    yield 2 * BATCH_TOKENS * widest * size
    yield BATCH_TOKENS * model.config.vocab_size * (size + 4)
    if placement.quantisation != "none":
        yield largest * size
    if placement.is_spread and placement.shares[-1].device == "cpu":
        yield max(sum(tensor.numel() for tensor in block.parameters()) for block in blocks_of(model)) * size

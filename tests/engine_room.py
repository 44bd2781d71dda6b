"""Tiny models with a real tokenizer behind real engines of both kinds, and a look inside at what an engine holds.

The looks inside follow transformers 5.23.0, as playground/engines/decoding/generation_loop.py does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import dispatch_model
from fakes import spec
from scripts_of_the_world import byte_level_tokenizer
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from model_registry.architectures.krutrim import KrutrimConfig, KrutrimForCausalLM
from playground.engines.batched import BatchedEngine, BatchedOptions
from playground.engines.checkpoints.device_map import block_names, device_map
from playground.engines.decoding.sharded_loop import Request
from playground.engines.in_process import InProcessEngine, Weights
from playground.engines.sharded import ShardedEngine, ShardedOptions
from playground.placement.plan import Share
from playground.prompting.encoder import PromptEncoder
from playground.types import GenerationChunk, GenerationRequest, Message, SamplingParams

Kind = Literal["batched", "sharded"]
KINDS: tuple[Kind, ...] = ("batched", "sharded")
CONTEXT = 256
EOS = 0
PATIENCE_S = 60
"""After which a test fails that would hang."""
GREEDY = {"temperature": 0}
QUESTIONS = (
    "안녕하세요",
    "नमस्ते, क्षत्रिय",
    "Hello there",
    "வணக்கம்",
    "x",
    "one two three four five",
    "다시 안녕",
    "ನಮಸ್ಕಾರ",
)


def tiny_llama(seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """Random weights, spread so that neither the argmax nor a sample is a tie; it never ends by itself."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    defaults = {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.3}
    config = {"vocab_size": 400, "bos_token_id": None, "eos_token_id": EOS, **sizes, **defaults, **config}
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    model.lm_head.weight.data[EOS] = 0
    return model


def tiny_gpt_neox(seed: int = 0) -> GPTNeoXForCausalLM:
    """As `tiny_llama`, of the first KULLMs' architecture."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {"vocab_size": 400, "bos_token_id": None, "eos_token_id": EOS}
    config = GPTNeoXConfig(**sizes, **ids, max_position_embeddings=CONTEXT, initializer_range=0.3)
    model = GPTNeoXForCausalLM(config).eval()
    model.lm_head.weight.data[EOS] = 0
    return model


def tiny_krutrim(seed: int = 0) -> KrutrimForCausalLM:
    """As `tiny_llama`, of Krutrim's architecture; the head is the embeddings."""
    torch.manual_seed(seed)
    attention = {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi": True}
    sizes = {"d_model": 32, "n_heads": 4, "n_layers": 3, "vocab_size": 400, "max_seq_len": CONTEXT}
    model = KrutrimForCausalLM(KrutrimConfig(**sizes, attn_config=attention, initializer_range=0.3)).eval()
    assert model.lm_head.weight is model.transformer.wte.weight
    model.lm_head.weight.data[EOS] = 0
    model.generation_config.eos_token_id = EOS
    return model


def shares(*parts: tuple[str, int]) -> tuple[Share, ...]:
    """Of a placement: devices, each with so many layers, one after the other."""
    result: list[Share] = []
    for device, layers in parts:
        first = result[-1].last_layer + 1 if result else 0
        result.append(Share(device, first, first + layers - 1, 0, 0, 0))
    return tuple(result)


def spread(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with its first layer in memory and the others on disk, by accelerate, as over two devices."""
    where = device_map(model, shares(("cpu", 1), ("disk", len(block_names(model)) - 1)))
    skip = model._skip_keys_device_placement
    return dispatch_model(model, where, offload_dir=str(folder), skip_keys=skip)


def encoder(model: PreTrainedModel, context: int = CONTEXT) -> PromptEncoder:
    """The last message, as it is, is the prompt; the tokenizer has as many tokens as the model."""
    facts = spec("tiny", template="{{ messages[-1].content }}").model_copy(update={"context_length": context})
    return PromptEncoder(facts, tokenizer_of(model))


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerFast:
    return byte_level_tokenizer(model.config.vocab_size)


def make_engine(
    model: PreTrainedModel | None = None,
    *,
    kind: Kind = "batched",
    context: int = CONTEXT,
    weights: Weights | None = None,
    **options: int,
) -> Any:
    """An engine of that kind; `max_batch_tokens` is, for both, how much of a prompt is read in one step."""
    model = model if model is not None else tiny_llama()
    sizes = {"kv_tokens": 2048, "max_batch_tokens": 128, **options}
    if kind == "batched":
        return BatchedEngine(model, encoder(model, context), options=BatchedOptions(**sizes), weights=weights)
    sizes["step_tokens"] = sizes.pop("max_batch_tokens")
    return ShardedEngine(model, encoder(model, context), options=ShardedOptions(**sizes), weights=weights)


def ask(question: str = "안녕", request_id: str | None = None, **sampling: Any) -> GenerationRequest:
    values = {"max_new_tokens": 24, "seed": 1, **sampling}
    ids = {} if request_id is None else {"request_id": request_id}
    return GenerationRequest(
        model_id="tiny",
        messages=(Message(role="user", content=question),),
        sampling=SamplingParams(**values),
        **ids,
    )


def tokens_in(chunks: Sequence[GenerationChunk]) -> tuple[int, ...]:
    """All that the model wrote."""
    return tuple(token for chunk in chunks for token in chunk.token_ids)


async def chunks_of(engine: InProcessEngine, request: GenerationRequest) -> list[GenerationChunk]:
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in engine.stream(request)]


async def answer(engine: InProcessEngine, request: GenerationRequest) -> str:
    return "".join(chunk.delta for chunk in await chunks_of(engine, request))


def generated(model: PreTrainedModel, question: str, **how: Any) -> str:
    """What `generate` answers greedily, as an engine would show it when cut by length."""
    tokenizer = tokenizer_of(model)
    ids = torch.tensor([tokenizer.encode(question, add_special_tokens=False)])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **how)
    return tokenizer.decode(out[0, ids.size(1) :], clean_up_tokenization_spaces=False).rstrip("\ufffd")


class Gate:
    """Stands before the model's forward; shut, it holds the generation thread there, and lets it by step for step."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._changed = threading.Condition()
        self._permits: int | None = None
        self.holds = False
        model.register_forward_pre_hook(self._pass)

    def _pass(self, *_: Any) -> None:
        with self._changed:
            self.holds = self._permits == 0
            assert self._changed.wait_for(lambda: self._permits != 0, 60), "the gate was never opened"
            self.holds = False
            if self._permits is not None:
                self._permits -= 1

    def shut(self) -> None:
        self._set(0)

    def open(self) -> None:
        self._set(None)

    async def step(self) -> None:
        """Let the step that is held go by, and wait until the next one is."""
        await until(lambda: self.holds)
        self._set(1)
        await until(lambda: self.holds)

    def _set(self, permits: int | None) -> None:
        with self._changed:
            self._permits = permits
            self.holds = self.holds and permits == 0
            self._changed.notify_all()


def processor(engine: Any) -> Any:
    return engine._loop._manager.batch_processor


def held(engine: InProcessEngine) -> set[str]:
    """Everything that the engine, its scheduler and its cache hold for requests."""
    streams = {f"stream {i}" for i in engine._admitted}
    return streams | (_held_by_rows(engine) if isinstance(engine, ShardedEngine) else _held_by_pages(engine))


def _held_by_pages(engine: InProcessEngine) -> set[str]:
    scheduler = processor(engine).scheduler
    tables = [
        table for allocator in processor(engine).cache.cache_allocators.values() for table in allocator.block_table
    ]
    return {
        *(f"active {i}" for i in scheduler.active_requests),
        *(f"waiting {i}" for i in [*scheduler.waiting_requests, *scheduler.waiting_requests_order]),
        *(f"blocks of {i}" for i in tables),
        *(f"inbox {i}" for i in engine._loop._router.inboxes),
    }


def _held_by_rows(engine: ShardedEngine) -> set[str]:
    loop = engine._loop
    tickets = {id(row): ticket for ticket, row in loop._live.items()}
    places = {"waiting": list(loop._waiting), "entering": rows_in(loop._entering), "running": rows_in(loop._running)}
    return {
        *(f"{place} {tickets.get(id(row), 'nobody')}" for place, rows in places.items() for row in rows),
        *(f"inbox {ticket}" for ticket in tickets.values()),
        *(f"cache on {device}" for device, (used, _) in loop.kv_use().items() if used),
    }


def rows_in(batch: Any) -> list[Request]:
    return list(batch.rows) if batch is not None else []


def active(engine: InProcessEngine) -> int:
    """Requests that are in the batch."""
    if isinstance(engine, ShardedEngine):
        return len([row for row in rows_in(engine._loop._running) if not row.gone])
    return len(processor(engine).scheduler.active_requests)


def thread_of(engine: InProcessEngine) -> threading.Thread:
    loop = engine._loop
    return loop._thread if isinstance(engine, ShardedEngine) else loop._manager._generation_thread


async def until(condition: Callable[[], bool]) -> None:
    """Let the generation thread come to where the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


async def assert_free(engine: InProcessEngine) -> None:
    """Nothing is held, all slots are back, and all of the cache can be had again."""
    await until(lambda: not held(engine))
    assert len(set(engine._slots)) == len(engine._slots)
    if isinstance(engine, ShardedEngine):
        return
    cache = processor(engine).cache
    kept = sum(len(a.ledger.cached_blocks) * a.bytes_per_block for a in cache.cache_allocators.values())
    whole = cache.num_sectors * cache.bytes_per_sector
    assert cache.compute_free_capacity(relative=False) + kept == whole
    assert len(engine._slots) == processor(engine).logit_processor._seen.size(0) - 1
    assert processor(engine).output_router.output_queue.empty()


class Room:
    """An engine and the gate before its model."""

    def __init__(self, kind: Kind = "batched", **options: int) -> None:
        model = tiny_llama()
        self.gate = Gate(model)
        self.engine = make_engine(model, kind=kind, **options)

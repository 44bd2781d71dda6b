"""One question to an engine or to plain `generate`, and the pace of its answer; for gpu.py."""

from __future__ import annotations

import random
from typing import Any

import torch
from answers import tokens_of
from pace import Pace, PlainStreamer

from playground.engines.base import Engine
from playground.types import GenerationRequest, Message, SamplingParams

SAMPLED: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "seed": 1}
GREEDY: dict[str, Any] = {"temperature": 0.0}
PROMPT_TOKENS = 64


def prompt(number: int) -> str:
    """Words of the smallest vocabulary; other ones for each number."""
    words = random.Random(f"question {number}")
    return " ".join(f"w{words.randrange(1, 3000)}" for _ in range(PROMPT_TOKENS))


async def answer(engine: Engine, tokens: int, number: int, how: str = "") -> Pace:
    sampling = SAMPLED if "sampled" in how else GREEDY
    request = GenerationRequest(
        model_id=engine.model_id,
        messages=(Message(role="user", content=prompt(number)),),
        sampling=SamplingParams(max_new_tokens=tokens, **sampling),
    )
    pace = Pace()
    async for chunk in engine.stream(request):
        assert chunk.usage is not None
        pace.add(chunk.delta, chunk.usage.completion_tokens)
    return pace


def generate(model: Any, tokens: int, number: int) -> Pace:
    ids = torch.tensor([tokens_of(prompt(number))], device=model.device)
    streamer = PlainStreamer()
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, streamer=streamer
        )
    return streamer.pace

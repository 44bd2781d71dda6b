"""An engine whose answers are scored, and a model like its own to hold the scores against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from adapted_room import base_engine
from engine_room import Kind, chunks_of, tiny_llama, tokens_in
from transformers import PreTrainedModel

from playground.types import GenerationRequest, ScoredPiece, TokenScore


@dataclass
class House:
    """`plain` is a model like the engine's, that runs nowhere."""

    model: PreTrainedModel
    plain: PreTrainedModel
    engine: Any


@asynccontextmanager
async def llama_house(kind: Kind) -> AsyncIterator[House]:
    model = tiny_llama()
    house = House(model, deepcopy(model), base_engine(model, kind))
    yield house
    await house.engine.close()


async def tokens_of(engine: Any, request: GenerationRequest) -> tuple[int, ...]:
    return tokens_in(await chunks_of(engine, request))


def scores(pieces: Sequence[ScoredPiece]) -> list[TokenScore]:
    return [token for piece in pieces for token in piece.tokens]

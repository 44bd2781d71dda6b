"""How probable each token of an answer was to the model that wrote it: prompt and answer are read once more.

A pass of its own, in a thread of its own, on a module tree of its own over the same weights: a forward pass writes to
its tree's config (transformers 5.23), and the engine's tree is its generation thread's. Answers go on meanwhile, a bit
slower. Knows no request and no loop; each `InProcessEngine` has one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from playground.engines.decoding.device_memory import input_device
from playground.engines.decoding.failures import drop_frames, first_line, is_memory
from playground.engines.text.detokenizer import REPLACEMENT
from playground.engines.text.pieces import cut
from playground.errors import EngineClosedError, EngineError, OutOfMemoryError, PlaygroundError
from playground.prompting.encoder import PromptEncoder
from playground.prompting.prompt import EncodedPrompt
from playground.types import LikelyToken, ScoredPiece, TokenScore

LIKELIEST = 5
READ_TOKENS = 256
"""Of the prompt in one step: what steps of other answers may have to wait for."""
SCORED_TOKENS = 64
"""Of the answer in one step: each takes as many float32 numbers as the vocabulary has tokens, twice."""
STOP_TIMEOUT_S = 0.9

log = logging.getLogger(__name__)


class Scorer:
    """One engine's, from its start to `stop`; one answer at a time, the others wait.

    Args:
        encoder: of the engine's model.
        eos_ids: tokens that end an answer.
        copy: makes a tree that nobody else runs, over the engine's weights. Raises EngineError.
    """

    def __init__(self, encoder: PromptEncoder, eos_ids: Collection[int], copy: Callable[[], PreTrainedModel]) -> None:
        self._name = encoder.spec.name
        self._tokenizer = encoder.tokenizer
        self._eos_ids = eos_ids
        self._copy = copy
        self._thread = ThreadPoolExecutor(1, "scoring")
        self._running: set[Future[tuple[ScoredPiece, ...]]] = set()
        self._stopped = threading.Event()

    async def score(self, prompt: EncodedPrompt, token_ids: Sequence[int]) -> tuple[ScoredPiece, ...]:
        """See `Engine.score`; the step that runs when nobody waits any more is the last."""
        given_up = threading.Event()
        try:
            future = self._thread.submit(self._score, prompt, tuple(token_ids), given_up)
        except RuntimeError as error:  # it was shut down
            raise self._closed() from error
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            return await asyncio.wrap_future(future)
        finally:
            given_up.set()

    def stop(self) -> None:
        """Whoever waits is told; blocks until the step that runs is over, but not much longer than a second."""
        self._stopped.set()
        self._thread.shutdown(wait=False)
        wait([*self._running], STOP_TIMEOUT_S)

    # The rest runs in its thread.

    def _score(
        self, prompt: EncodedPrompt, token_ids: tuple[int, ...], given_up: threading.Event
    ) -> tuple[ScoredPiece, ...]:
        def check() -> None:
            if self._stopped.is_set() or given_up.is_set():
                raise self._closed()

        try:
            check()
            return self._pieces(token_ids, self._places(prompt, token_ids, check))
        except Exception as error:
            failure = error
        finally:
            torch.cuda.empty_cache()  # of this thread's stream, of which the others' can have nothing
        raise self._sentence(failure)

    def _places(self, prompt: EncodedPrompt, token_ids: Sequence[int], check: Callable[[], None]) -> list[_Place]:
        tree = self._copy()
        self._require_possible(tree, prompt, token_ids)
        return list(_read(tree, prompt.token_ids, token_ids, check)) if token_ids else []

    def _require_possible(self, tree: PreTrainedModel, prompt: EncodedPrompt, token_ids: Sequence[int]) -> None:
        most = tree.config.get_text_config().vocab_size
        strange = next((token for token in token_ids if not 0 <= token < most), None)
        if strange is not None:
            raise EngineError(f"{self._name} has no token {strange}, only 0 to {most - 1}: this answer is another's.")
        length = len(prompt.token_ids) + len(token_ids)
        if length > prompt.context_length:
            raise EngineError(
                f"Prompt and answer have {length} tokens together, and {self._name} can take {prompt.context_length}: "
                "this answer is to another prompt."
            )

    def _pieces(self, token_ids: Sequence[int], places: Sequence[_Place]) -> tuple[ScoredPiece, ...]:
        text_of = _Texts(self._tokenizer)
        scores = [
            TokenScore(
                token,
                text_of[token],
                place.probability,
                tuple(LikelyToken(other, text_of[other], probability) for other, probability in place.likeliest),
            )
            for token, place in zip(token_ids, places, strict=True)
        ]
        control = {*self._eos_ids, *self._tokenizer.all_special_ids}
        return tuple(
            ScoredPiece(
                piece.text,
                tuple(scores[piece.first : piece.end]),
                is_control=control.issuperset(token_ids[piece.first : piece.end]),
            )
            for piece in cut(self._tokenizer, token_ids, self._eos_ids)
        )

    def _sentence(self, error: Exception) -> PlaygroundError:
        """The error as the user's; see `drop_frames`."""
        if not isinstance(error, PlaygroundError) and not is_memory(error):
            log.error("%s: scoring an answer\n%s", self._name, "".join(traceback.format_exception(error)))
        drop_frames(error)
        if isinstance(error, PlaygroundError):
            return error
        gc.collect()
        torch.cuda.empty_cache()
        if is_memory(error):
            return OutOfMemoryError(
                f"The device is full: {self._name} could not read the prompt and this answer once more. Wait for other "
                "answers, or unload another model, and try again."
            )
        return EngineError(f"{self._name} failed: {first_line(error)}. Try again; the log has the details.")

    def _closed(self) -> EngineClosedError:
        return EngineClosedError(f"{self._name} was stopped: send again to load it.")


class _Place(NamedTuple):
    """Of one token of an answer: its probability, and the likeliest there with theirs, the best first."""

    probability: float
    likeliest: list[tuple[int, float]]


@torch.no_grad()
def _read(
    tree: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int], check: Callable[[], None]
) -> Iterator[_Place]:
    """The place of each token of the answer. `check` is called before each step, and may raise."""
    run: Any = tree
    device = input_device(tree)
    ids = torch.tensor([[*prompt, *answer]], device=device)
    first, last = len(prompt) - 1, ids.shape[1] - 1
    cache = None
    with torch.accelerator.device_index(device.index):
        for start, end in pairwise([*range(0, first, READ_TOKENS), *range(first, last, SCORED_TOKENS), last]):
            check()
            keep = 1 if start < first else end - start
            output = run(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True, logits_to_keep=keep)
            cache = output.past_key_values
            if start >= first:
                yield from _places(output.logits[0].to(device, torch.float32), ids[0, start + 1 : end + 1])


def _places(logits: Tensor, came: Tensor) -> Iterator[_Place]:
    """`logits`: (places, vocab) float32; `came`: (places,) the tokens behind them."""
    probabilities = logits.softmax(-1)
    own = probabilities.gather(-1, came[:, None])[:, 0].tolist()
    values, tokens = probabilities.topk(min(LIKELIEST, logits.shape[-1]))
    for probability, those, theirs in zip(own, tokens.tolist(), values.tolist(), strict=True):
        yield _Place(probability, list(zip(those, theirs, strict=True)))


class _Texts(dict[int, str]):
    """What each token reads as, with a space at its front; as the vocabulary spells it where it is half a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def __missing__(self, token: int) -> str:
        # Behind itself, for tokenizers that drop the space at the front of a text.
        text = self._decode(token, token)[len(self._decode(token)) :]
        if not text or REPLACEMENT in text:
            text = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        self[token] = text
        return text

    def _decode(self, *token_ids: int) -> str:
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

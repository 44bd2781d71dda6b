"""One answer on its way from token ids to deltas: detokenizer, then stop strings, then grapheme clusters.

Also decides how an answer finished. Knows no model and no thread; an engine makes one for each request.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from playground.engines.text.detokenizer import Detokenizer
from playground.engines.text.graphemes import GraphemeBuffer
from playground.engines.text.stopping import StopStrings
from playground.types import FinishReason


class Answer:
    """`token_ids` are all that the model wrote, a final end-of-sequence token included; the text leaves that one out.

    `finish_reason` is None until the answer is over.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_ids: Collection[int], stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(stop)
        self._graphemes = GraphemeBuffer()
        self._eos_ids = eos_ids
        self.token_ids: Sequence[int] = ()
        self.finish_reason: FinishReason | None = None

    def read(self, generated: Sequence[int], *, finished: bool) -> str:
        """The delta that the new tokens make.

        Args:
            generated: all tokens so far, those read before included.
            finished: whether the model writes no more, because of an end-of-sequence token or of the length.
        """
        fresh = generated[len(self.token_ids) :]
        self.token_ids = generated
        ended = finished and generated[-1] in self._eos_ids
        text = self._detokenizer.push(fresh[:-1] if ended else fresh)
        if finished:
            # Cut by length, a last character may lack bytes: that is no fault of the model's, so it is left out.
            text += self._detokenizer.flush(keep_broken=ended)
        text = self._stops.push(text)
        if self._stops.found:
            return self._finish("stop", text)
        if finished:
            return self._finish("stop" if ended else "length", text)
        return self._graphemes.push(text)

    def abort(self) -> str:
        """The answer ends here: what was held back comes out."""
        return self._finish("abort", "")

    def _finish(self, reason: FinishReason, text: str) -> str:
        self.finish_reason = reason
        return self._graphemes.push(text + self._stops.flush()) + self._graphemes.flush()

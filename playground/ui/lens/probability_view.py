"""How probable an answer was, as HTML: its pieces in shades of one hue, and what a click on one of them shows.

Every alternative is in the markup, so a click asks no server; probabilities.js draws it. Pure functions; know no
component. Called by `probabilities`.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence

from playground.types import LikelyToken, ScoredPiece, TokenScore
from playground.ui.state import Turn
from playground.ui.view import adapter_words, error_box, verbatim

LEVELS = ((0.9, "90 % and more"), (0.5, "50 to 90 %"), (0.2, "20 to 50 %"), (0.05, "5 to 20 %"), (0.0, "under 5 %"))
"""From which probability on, and in words; the style sheet has a shade and a line for each, by its place."""

WHAT = (
    "The model's own probability of each token at its place: before temperature, repetition penalty and filters. "
    "Press a part of the answer to see what else could have come there."
)
BEHIND_ITS_END = "What was cut off or held back when it ended is shown too."
WAITING = "Reading the prompt and the answer once more …"


def odds(turn: Turn, pieces: Sequence[ScoredPiece]) -> str:
    """The answer of a turn, coloured."""
    shown = "".join(piece.text for piece in pieces if not piece.is_control)
    more = f" {BEHIND_ITS_END}" if shown != turn.answer and shown.startswith(turn.answer) else ""
    parts = "".join(_part(piece, number) for number, piece in enumerate(pieces))
    return (
        f'<div class="odds"><div class="odds-facts">{_facts(turn, pieces)}</div><p>{WHAT}{more}</p>'
        f'<div class="odds-text" role="group" aria-label="Token probabilities">{parts}</div>{_legend()}</div>'
    )


def waiting() -> str:
    return f'<div class="odds" role="status"><p>{WAITING}</p></div>'


def refusal(sentence: str) -> str:
    return f'<div class="odds">{error_box(sentence)}</div>'


def level(probability: float) -> int:
    """The place in LEVELS."""
    return next(place for place, (least, _) in enumerate(LEVELS) if probability >= least)


def percent(probability: float) -> str:
    """Such as "53 %", "3.1 %", "under 0.1 %", and "over 99.9 %" where it is not all."""
    if probability >= 1:
        return "100 %"
    if probability > 0.999:
        return "over 99.9 %"
    if probability >= 0.0995:
        return f"{100 * probability:.1f} %" if probability > 0.99 else f"{100 * probability:.0f} %"
    return f"{100 * probability:.1f} %" if probability >= 0.001 else "under 0.1 %"


def _facts(turn: Turn, pieces: Sequence[ScoredPiece]) -> str:
    scores = [score.probability for piece in pieces for score in piece.tokens]
    use = turn.request.adapter
    facts = [turn.request.model_id + (f" + {adapter_words(use)}" if use else "")]
    facts.append("1 token" if len(scores) == 1 else f"{len(scores):,} tokens")
    if scores:
        facts += [f"mean probability {percent(sum(scores) / len(scores))}", f"perplexity {_perplexity(scores)}"]
    return "".join(f"<span>{verbatim(fact)}</span>" for fact in facts)


def _perplexity(scores: Sequence[float]) -> str:
    """As of how many equally likely tokens the model chose, on the geometric mean."""
    if min(scores) <= 0:
        return "beyond measure"
    surprise = -sum(math.log(score) for score in scores) / len(scores)
    return f"{math.exp(surprise):,.2f}"


def _part(piece: ScoredPiece, number: int) -> str:
    probability = math.prod(score.probability for score in piece.tokens)
    shape = "control " if piece.is_control else "silent " if not piece.text else ""
    shape += "line " if piece.text.startswith(("\n", "\r")) else ""
    each = " × ".join(percent(score.probability) for score in piece.tokens)
    title = percent(probability) + (f" = {each}" if len(piece.tokens) > 1 else "")
    data = html.escape(json.dumps([_token(score) for score in piece.tokens], ensure_ascii=False, separators=(",", ":")))
    return (
        f'<span class="{shape}odd p{level(probability)}" role="button" tabindex="{0 if number == 0 else -1}" '
        f'title="{title}" data-odds="{data}">{verbatim(piece.text)}</span>'
    )


def _token(score: TokenScore) -> list[object]:
    """Text and percentage of the token that came; then of the likeliest text, percentage, share, whether it came."""
    likeliest = [
        [likely.text, percent(likely.probability), round(likely.probability, 4), int(_came(likely, score))]
        for likely in score.likeliest
    ]
    return [score.text, percent(score.probability), likeliest]


def _came(likely: LikelyToken, score: TokenScore) -> bool:
    """By its text too, for a server may not tell the ids."""
    return (likely.token_id, likely.text) == (score.token_id, score.text)


def _legend() -> str:
    marks = "".join(
        f'<li><span class="odd p{place}">abc</span> {words}</li>' for place, (_, words) in enumerate(LEVELS)
    )
    return f'<ul class="odds-legend" aria-label="Legend">{marks}</ul>'

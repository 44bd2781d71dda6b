"""A prompt as HTML, token by token: a box for the fewest tokens that make whole characters, and what they cost.

What a box's tokens are called in the vocabulary is told where the pointer rests, by page.js, from one list for all of
them: thousands of boxes are cheap as long as each is a tag, a number and a text. Pure functions. Knows no gradio
component. Called by `lens_view`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from playground.prompting.prompt import Budget, Piece, PieceKind, Span, TokenCounts
from playground.ui.lens.parts import Seen
from playground.ui.lens.prompt_view import Names
from playground.ui.view import verbatim

Group = tuple[Span, list[tuple[Span, Piece]]]
"""A part with the pieces that begin in it."""

MOST_OF_HISTORY = 800
"""Tokens of earlier turns that are shown without being asked for: boxes cost a browser 20 times what text does."""

VISIBLE = str.maketrans({" ": "·", "\t": "⇥", "\n": "⏎", "\r": "␍", "\u00a0": "⍽"})
KINDS: dict[PieceKind, str] = {"text": "", "bytes": " class=y", "control": " class=c", "tokenizer": " class=k"}


def folded(seen: Seen, budget: Budget, every_turn: bool) -> frozenset[int]:
    """The messages that are shown without tokens: earlier turns, where they are long and nobody asks for them."""
    if every_turn or budget.history <= MOST_OF_HISTORY:
        return frozenset()
    return frozenset(index for index in range(seen.last) if seen.messages[index].role != "system")


def boxes(seen: Seen, pieces: Sequence[Piece], names: Names, folded: Collection[int] = ()) -> str:
    """The tokens of a prompt in boxes, a paragraph for each line; page.js reads `data-names`."""
    groups = [(span, list(group)) for span, group in groupby(_owned(seen, pieces), key=itemgetter(0))]
    shown = [piece for span, group in groups if span.message not in folded for _, piece in group]
    ids = sorted({token for piece in shown for token in _ids(seen, piece)})
    spelled = "\n".join(f"{token} {one_line(name)}" for token, name in zip(ids, names(ids), strict=True))
    return f'<div class="boxes" data-names="{verbatim(spelled)}">{"".join(_lines(seen, groups, names, folded))}</div>'


def _lines(seen: Seen, groups: Iterable[Group], names: Names, folded: Collection[int]) -> Iterator[str]:
    """Short paragraphs, so that a browser lays out anew no more than what changed."""
    named: set[str] = set()
    line: list[str] = []
    for span, group in groups:
        if span.message in folded:
            line.append(_part(seen, span, f"<em>{span.end_token - span.first_token:,} tokens</em>", named))
            continue
        for ends, owned in groupby(group, key=lambda each: "\n" in seen.prompt.text[each[1].start : each[1].end]):
            line.append(_part(seen, span, "".join(_box(seen, piece, names) for _, piece in owned), named))
            if ends:
                yield f"<p>{''.join(line)}</p>"
                line = []
    if line:
        yield f"<p>{''.join(line)}</p>"


def _owned(seen: Seen, pieces: Iterable[Piece]) -> Iterator[tuple[Span, Piece]]:
    """Each piece with the span in which it begins."""
    spans = iter(seen.prompt.spans)
    span = next(spans, None)
    for piece in pieces:
        while span and span.end_token <= piece.first_token:
            span = next(spans, None)
        if span:
            yield span, piece


def _part(seen: Seen, span: Span, markup: str, named: set[str]) -> str:
    label = seen.span_label(span)
    attribute = "" if not label or label in named else f' data-l="{verbatim(label)}"'
    named.add(label)
    return f'<span class="{seen.look(span)}"{attribute}>{markup}</span>'


def _box(seen: Seen, piece: Piece, names: Names) -> str:
    ids = _ids(seen, piece)
    text = seen.prompt.text[piece.start : piece.end] if piece.start < piece.end else "".join(names(ids))
    return box(text, ids, piece.kind)


def box(text: str, ids: Sequence[int], kind: PieceKind) -> str:
    """One piece, with how many tokens it is where they are several; page.js reads `data-i`."""
    count = f" data-c={len(ids)}" if len(ids) > 1 else ""
    return f'<b{KINDS[kind]}{count} data-i="{" ".join(map(str, ids))}">{verbatim(visible(text))}</b>'


def _ids(seen: Seen, piece: Piece) -> tuple[int, ...]:
    return seen.prompt.token_ids[piece.first_token : piece.end_token]


def visible(text: str) -> str:
    """White space as signs."""
    return text.translate(VISIBLE)


def one_line(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def counts_line(counts: TokenCounts, whose: str = "") -> str:
    """Such as "34 tokens · 12 characters · 2.83 tokens per character · 71 % byte tokens"."""
    facts = [f"{counts.tokens:,} tokens", f"{counts.characters:,} characters"]
    if counts.characters:
        facts.append(f"{counts.tokens_per_character:.2f} tokens per character")
    facts.append(f"{100 * counts.byte_share:.0f} % byte-fallback tokens")
    head = f"<b>{verbatim(whose)}</b>" if whose else ""
    return f'<div class="counts">{head}{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'

"""A prompt as HTML, token by token: a box for the fewest tokens that make whole characters, and what they cost.

What a box's tokens are called in the vocabulary is told where the pointer rests, by page.js, from one list for all of
them: thousands of boxes are cheap as long as each is a tag, a number and a text. Pure functions. Knows no gradio
component. Called by `lens_view`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from playground.prompting.prompt import Piece, PieceKind, Span, TokenCounts
from playground.ui.lens.parts import Seen
from playground.ui.lens.prompt_view import Names
from playground.ui.view import verbatim

VISIBLE = str.maketrans({" ": "·", "\t": "⇥", "\n": "⏎", "\r": "␍", "\u00a0": "⍽"})
KINDS: dict[PieceKind, str] = {"text": "", "bytes": " class=y", "control": " class=c", "tokenizer": " class=k"}


def boxes(seen: Seen, pieces: Sequence[Piece], names: Names) -> str:
    """All tokens of a prompt in boxes, a paragraph for each line; page.js reads `data-names`."""
    ids = sorted({*seen.prompt.token_ids})
    spelled = "\n".join(f"{token} {_one_line(name)}" for token, name in zip(ids, names(ids), strict=True))
    return f'<div class="boxes" data-names="{verbatim(spelled)}">{"".join(_lines(seen, pieces, names))}</div>'


def _lines(seen: Seen, pieces: Sequence[Piece], names: Names) -> Iterator[str]:
    """Short paragraphs, so that a browser lays out anew no more than what changed."""
    named: set[str] = set()
    groups: list[str] = []
    for span, group in groupby(_owned(seen, pieces), key=itemgetter(0)):
        for ends, line in groupby(group, key=lambda owned: "\n" in seen.prompt.text[owned[1].start : owned[1].end]):
            groups.append(_group(seen, span, [_box(seen, piece, names) for _, piece in line], named))
            if ends:
                yield f"<p>{''.join(groups)}</p>"
                groups = []
    if groups:
        yield f"<p>{''.join(groups)}</p>"


def _owned(seen: Seen, pieces: Sequence[Piece]) -> Iterator[tuple[Span, Piece]]:
    """Each piece with the span in which it begins."""
    spans = iter(seen.prompt.spans)
    span = next(spans, None)
    for piece in pieces:
        while span and span.end_token <= piece.first_token:
            span = next(spans, None)
        if span:
            yield span, piece


def _group(seen: Seen, span: Span, boxes: Sequence[str], named: set[str]) -> str:
    label = seen.span_label(span)
    attribute = "" if not label or label in named else f' data-l="{verbatim(label)}"'
    named.add(label)
    return f'<span class="{seen.look(span)}"{attribute}>{"".join(boxes)}</span>'


def _box(seen: Seen, piece: Piece, names: Names) -> str:
    ids = seen.prompt.token_ids[piece.first_token : piece.end_token]
    text = seen.prompt.text[piece.start : piece.end] if piece.start < piece.end else "".join(names(ids))
    count = f" data-c={len(ids)}" if len(ids) > 1 else ""
    return f'<b{KINDS[piece.kind]}{count} data-i="{" ".join(map(str, ids))}">{verbatim(visible(text))}</b>'


def visible(text: str) -> str:
    """White space as signs."""
    return text.translate(VISIBLE)


def _one_line(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def counts_line(counts: TokenCounts, whose: str = "") -> str:
    """Such as "34 tokens · 12 characters · 2.83 tokens per character · 71 % byte tokens"."""
    facts = [f"{counts.tokens:,} tokens", f"{counts.characters:,} characters"]
    if counts.characters:
        facts.append(f"{counts.tokens_per_character:.2f} tokens per character")
    facts.append(f"{100 * counts.byte_share:.0f} % byte-fallback tokens")
    head = f"<b>{verbatim(whose)}</b>" if whose else ""
    return f'<div class="counts">{head}{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'

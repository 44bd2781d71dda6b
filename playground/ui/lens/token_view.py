"""A prompt as HTML, token by token: a box for the fewest tokens that make whole characters, and what they cost.

What a box's tokens are called in the vocabulary is told where the pointer rests, by page.js, from one list for all of
them: thousands of boxes are cheap as long as each is a tag, a number and a text. Pure functions. Knows no gradio
component. Called by `lens_view`.
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.prompting.prompt import Piece, PieceKind, Span, TokenCounts
from playground.ui.lens.parts import Seen
from playground.ui.lens.prompt_view import Names, paragraphs
from playground.ui.view import verbatim

VISIBLE = str.maketrans({" ": "·", "\t": "⇥", "\n": "⏎", "\r": "␍", "\u00a0": "⍽"})
KINDS: dict[PieceKind, str] = {"text": "", "bytes": " class=y", "control": " class=c", "tokenizer": " class=k"}


def boxes(seen: Seen, pieces: Sequence[Piece], names: Names) -> str:
    """All tokens of a prompt in boxes, a paragraph for each message; page.js reads `data-names`."""
    ids = sorted({*seen.prompt.token_ids})
    spelled = "\n".join(f"{token} {_one_line(name)}" for token, name in zip(ids, names(ids), strict=True))
    place, written = 0, []
    for spans in paragraphs(seen.prompt):
        groups = []
        for span in spans:
            end = place
            while end < len(pieces) and pieces[end].first_token < span.end_token:
                end += 1
            groups.append((span, pieces[place:end]))
            place = end
        written.append(f"<p>{''.join(_group(seen, span, group, names) for span, group in groups if group)}</p>")
    return f'<div class="boxes" data-names="{verbatim(spelled)}">{"".join(written)}</div>'


def _group(seen: Seen, span: Span, pieces: Sequence[Piece], names: Names) -> str:
    label = seen.span_label(span)
    attribute = f' data-l="{verbatim(label)}"' if label else ""
    return f'<span class="{seen.look(span)}"{attribute}>{"".join(_box(seen, piece, names) for piece in pieces)}</span>'


def _box(seen: Seen, piece: Piece, names: Names) -> str:
    ids = seen.prompt.token_ids[piece.first_token : piece.end_token]
    text = seen.prompt.text[piece.start : piece.end] if piece.start < piece.end else "".join(names(ids))
    count = f" data-c={len(ids)}" if len(ids) > 1 else ""
    line_end = "\n" if "\n" in text else ""
    return f'<b{KINDS[piece.kind]}{count} data-i="{" ".join(map(str, ids))}">{verbatim(visible(text))}</b>{line_end}'


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

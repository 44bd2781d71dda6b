"""One text in the tokens of several models, as HTML: a row a line, a column a tokenizer, and which needs fewest.

Pure functions; every text goes through `verbatim`. Knows no gradio component. Called by `side_by_side`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from playground.prompting.prompt import TokenCounts, TokenizedText
from playground.prompting.tokens import TokenLine, by_line
from playground.ui.lens.token_view import box, one_line
from playground.ui.view import error_box, verbatim

MOST_LAID = 2000
"""Characters that are shown in boxes, which cost a browser 20 times what text does."""


@dataclass(frozen=True)
class Column:
    """`name`: the models that have this tokenizer. `tokens`: None where it could not be had, which `error` explains."""

    name: str
    tokens: TokenizedText | None
    error: str = ""


def empty(sentence: str) -> str:
    return f'<div class="side-by-side"><p class="verdict">{verbatim(sentence)}</p></div>'


def table(title: str, columns: Sequence[Column]) -> str:
    """`title`: whose text it is. `columns`: at least one."""
    known = [(column.name, column.tokens) for column in columns if column.tokens is not None]
    heads = "".join(_head(column) for column in columns)
    lines = [_laid(by_line(column.tokens)) if column.tokens else [] for column in columns]
    rows = "".join(_row(number, columns, row) for number, row in enumerate(zip_longest(*lines), 1))
    total = max((len(tokens.text) for _, tokens in known), default=0)
    rest = f"<p>The first {MOST_LAID:,} of {total:,} characters are laid out; the totals are of all.</p>"
    return (
        f'<div class="side-by-side" style="--columns:{len(columns)}">'
        f'<p class="verdict" role="status"><span>{title}</span> {verbatim(verdict(known))}</p>'
        f'<div class="heads">{heads}</div>{rows}{rest if total > MOST_LAID else ""}</div>'
    )


def verdict(known: Sequence[tuple[str, TokenizedText]]) -> str:
    """Which model needs the fewest tokens, computed; `known`: each tokenizer's name and its tokens of the text."""
    if len(known) < 2:
        return "There is one tokenizer here: show a panel with another model to compare."
    ranked = sorted((tokens.counts.tokens, name) for name, tokens in known)
    least, most = ranked[0][0], ranked[-1][0]
    if least == most:
        return f"All need the same: {_tokens(least)}."
    first = [name for count, name in ranked if count == least]
    others = "; ".join(_needs(name, count, least) for count, name in ranked if count > least)
    verb = "needs" if len(first) == 1 else "need"
    return f"{' and '.join(first)} {verb} the fewest tokens, {least:,}; {others}."


def _needs(name: str, count: int, least: int) -> str:
    return f"{name} needs {count:,}" + (f", {count / least:.2f} times as many" if least else "")


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def _head(column: Column) -> str:
    name = f"<h3>{verbatim(column.name)}</h3>"
    return f"<div>{name}{counts(column.tokens.counts) if column.tokens else error_box(column.error)}</div>"


def counts(of: TokenCounts) -> str:
    """Tokens, characters, tokens per character, share of byte tokens."""
    facts = [_tokens(of.tokens), "1 character" if of.characters == 1 else f"{of.characters:,} characters"]
    if of.characters:
        facts += [f"{of.tokens_per_character:.2f} tokens per character", f"{100 * of.byte_share:.0f} % byte tokens"]
    return f'<div class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'


def _laid(lines: Sequence[TokenLine]) -> list[TokenLine]:
    return [line for line in lines if line.start < MOST_LAID]


def _row(number: int, columns: Sequence[Column], lines: Sequence[TokenLine | None]) -> str:
    cells = "".join(
        _cell(number, column.name, column.tokens, line) if column.tokens and line else "<div></div>"
        for column, line in zip(columns, lines, strict=True)
    )
    return f'<div class="line"><i>{number}</i>{cells}</div>'


def _cell(number: int, name: str, tokens: TokenizedText, line: TokenLine) -> str:
    """Its tokens' names stand in an attribute: page.js shows a box's where the pointer is, the style sheet all of them
    where the focus is."""
    spelled: dict[int, str] = {}
    boxes = []
    for piece in line.pieces:
        if piece.start < MOST_LAID:
            ids = tokens.token_ids[piece.first_token : piece.end_token]
            spelled.update(zip(ids, tokens.names[piece.first_token : piece.end_token], strict=True))
            boxes.append(box(tokens.text[piece.start : piece.end], ids, piece.kind))
    named = "\n".join(f"{token} {one_line(spelling)}" for token, spelling in spelled.items())
    label = f"Line {number}, {name}: {_tokens(line.counts.tokens)}"
    return (
        f'<div class="boxes" tabindex="0" role="group" aria-label="{verbatim(label)}" data-m="{verbatim(name)}" '
        f'data-names="{verbatim(named)}"><p>{"".join(boxes)}</p>{counts(line.counts)}</div>'
    )

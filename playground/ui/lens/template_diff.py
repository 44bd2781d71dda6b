"""How a template differs from the model's own, line by line, as HTML: with signs, and what differs in a line marked.

Pure functions. Knows no gradio component. Called by `template_view`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Literal, NamedTuple

import regex

from playground.ui.view import verbatim

CONTEXT = 2
"""Lines shown around a change."""

MOST_PAIRS = 250_000
"""Lines of one times lines of the other that are compared one by one; beyond, all of one becomes all of the other."""

_CLUSTER = regex.compile(r"\X")


class Row(NamedTuple):
    """A line and its number, counted from 1 in the text that has it; or how many lines are left out.

    `other`: the line that it replaces or is replaced by, "" if there is none.
    """

    kind: Literal["same", "gone", "new", "left out"]
    number: int
    line: str = ""
    other: str = ""


def lines_of(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def diff(own: str, text: str) -> str:
    rows = "".join(map(_row, compare(lines_of(own), lines_of(text))))
    return f'<div class="template-diff" tabindex="0" role="group" aria-label="Changes to the template">{rows}</div>'


def compare(own: Sequence[str], text: Sequence[str]) -> Iterator[Row]:
    """The lines that changed, with some around them."""
    for kind, a, until_a, b, until_b in _blocks(own, text):
        gone, new = own[a:until_a], text[b:until_b]
        if kind == "equal":
            yield from _same(new, b, is_last=until_b == len(text))
        else:
            yield from (Row("gone", a + 1 + i, line, _at(new, i)) for i, line in enumerate(gone))
            yield from (Row("new", b + 1 + i, line, _at(gone, i)) for i, line in enumerate(new))


def _blocks(own: Sequence[str], text: Sequence[str]) -> Iterator[tuple[str, int, int, int, int]]:
    start = _common(own, text)
    end = min(_common(own[::-1], text[::-1]), len(own) - start, len(text) - start)
    a, b = own[start : len(own) - end], text[start : len(text) - end]
    middle: Sequence[tuple[str, int, int, int, int]] = [("replace", 0, len(a), 0, len(b))]
    if len(a) * len(b) <= MOST_PAIRS:
        middle = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    yield "equal", 0, start, 0, start
    for kind, *places in middle:
        yield kind, *(start + place for place in places)  # type: ignore[misc]
    yield "equal", len(own) - end, len(own), len(text) - end, len(text)


def _same(lines: Sequence[str], first: int, is_last: bool) -> Iterator[Row]:
    rows = [Row("same", first + 1 + i, line) for i, line in enumerate(lines)]
    head, tail = CONTEXT if first else 0, 0 if is_last else CONTEXT
    unseen = len(rows) - head - tail
    if unseen < 2:
        yield from rows
    else:
        yield from (*rows[:head], Row("left out", unseen), *rows[len(rows) - tail :])


def _row(row: Row) -> str:
    match row.kind:
        case "left out":
            return f"<div><i>⋮</i><b></b><span>{row.number} lines as they were</span></div>"
        case "same":
            return f"<div><i>{row.number}</i><b></b><span>{verbatim(row.line)}</span></div>"
        case "gone":
            return f"<del><i>{row.number}</i><b>−</b><span>{_marked(row.line, row.other)}</span></del>"
        case "new":
            return f"<ins><i>{row.number}</i><b>+</b><span>{_marked(row.line, row.other)}</span></ins>"


def _marked(line: str, other: str) -> str:
    """The line, with what the other has not marked, in whole clusters, so that no mark tears a syllable."""
    mine, its = _CLUSTER.findall(line), _CLUSTER.findall(other)
    start = _common(mine, its)
    end = len(mine) - min(_common(mine[::-1], its[::-1]), len(mine) - start, len(its) - start)
    before, middle, after = (verbatim("".join(part)) for part in (mine[:start], mine[start:end], mine[end:]))
    return f"{before}<mark>{middle}</mark>{after}" if middle and other else verbatim(line)


def _at(lines: Sequence[str], place: int) -> str:
    return lines[place] if place < len(lines) else ""


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """With how many items that are the same both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

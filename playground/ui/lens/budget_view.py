"""How a context is shared out, as HTML: a bar with its legend, and what becomes of a prompt that does not fit.

Room is told in characters too, of the script that is being typed and by what its characters cost in that very text.
Pure functions. Knows no gradio component. Called by `lens_view`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from playground.prompting.prompt import Budget, TokenCounts
from playground.ui.lens.parts import Seen, turns_in_words
from playground.ui.view import hint, verbatim

SCRIPTS = {"CJK": "Han"}
"""Where the first word of Unicode's name for a character is not the script's."""

PARTS = (
    ("system", "s", "System"),
    ("history", "a", "History"),
    ("prompt", "w", "This prompt"),
    ("frame", "t", "Template"),
)


def bar(budget: Budget, room_in_words: str = "") -> str:
    """`room_in_words`: as `room_words` says it."""
    used = budget.system + budget.history + budget.prompt + budget.frame
    pieces = "".join(_piece(look, getattr(budget, name)) for name, look, _ in PARTS)
    spare = max(0, budget.room - max(0, budget.answer))
    pieces += _piece("answer", max(0, budget.answer)) + _piece("spare", spare)
    facts = "".join(_fact(look, f"{words} {getattr(budget, name):,}") for name, look, words in PARTS)
    room = f"Room {max(0, budget.room):,}"
    about = f"<span>{verbatim(room_in_words)}</span>" if room_in_words else ""
    over = " over" if budget.room < 1 else ""
    share = f"{used:,} of {budget.context_length:,} tokens"
    return (
        f'<div class="budget{over}"><div class="bar" role="img" aria-label="Context: {share}">{pieces}</div>'
        f'<div class="facts"><span class="tokens">{share}</span>{facts}{_fact("answer", room)}{about}</div></div>'
    )


def _piece(look: str, tokens: int) -> str:
    return f'<i class="{look}" style="flex-grow:{tokens}"></i>' if tokens > 0 else ""


def _fact(look: str, words: str) -> str:
    return f'<span><i class="{look}"></i>{words}</span>'


def room_words(room: int, counts: TokenCounts, script: str) -> str:
    """Such as "about 1,900 Hangul characters", "" where there is no room or nothing to measure by."""
    if room < 1 or not counts.tokens:
        return ""
    characters = _two_digits(room * counts.characters / counts.tokens)
    return f"about {characters:,} {script} characters" if script else f"about {characters:,} characters"


def _two_digits(number: float) -> int:
    """An estimate is no more exact than that."""
    whole = round(number)
    step = 10 ** max(0, len(str(whole)) - 2)
    return round(whole / step) * step


def script_of(text: str) -> str:
    """The script of most of its letters as Unicode names it, such as "Hangul"; "" if there is no letter."""
    found = Counter(unicodedata.name(sign, "").split(" ")[0] for sign in text if sign.isalpha())
    found.pop("", None)
    if not found:
        return ""
    name = found.most_common(1)[0][0]
    return SCRIPTS.get(name, name.capitalize())


def warnings(seen: Seen, budget: Budget, asked_tokens: int) -> str:
    """What becomes of a prompt that leaves too little room. `asked_tokens`: the longest answer that is wished for."""
    said = []
    if seen.left_out:
        them = turns_in_words(seen.left_out)
        said.append(
            f"The context is full: {them} will not be sent."
            if seen.stage == "typing"
            else f"The context was full: {them} not sent."
        )
    if budget.room < 1 and seen.stage == "typing":
        excess = 1 - budget.room
        tokens = "1 token" if excess == 1 else f"{excess:,} tokens"
        choice = "" if seen.options.when_full == "drop_oldest" else _advice(seen)
        said.append(f"Sending this would be refused: it is {tokens} too long for {seen.model}.{choice}")
    elif budget.room < asked_tokens and seen.stage == "typing":
        said.append(f"The answer ends after {budget.room:,} tokens at the latest: there is no room for more.")
    return "".join(hint(sentence) for sentence in said)


def _advice(seen: Seen) -> str:
    earlier = any(message.role == "user" for message in seen.messages[: seen.last])
    return " Under Prompting, the oldest turns can be left out." if earlier else ""

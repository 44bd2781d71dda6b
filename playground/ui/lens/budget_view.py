"""How a context is shared out, as HTML: a bar with its legend, and what becomes of a prompt that does not fit.

Room is told in characters too, of the script that is being typed and by what its characters cost in that very text.
Pure functions. Knows no gradio component. Called by `lens_view`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from playground.prompting.prompt import Budget, TokenCounts
from playground.ui.lens.parts import Seen, turns_in_words
from playground.ui.view import verbatim

SCRIPTS = {"CJK": "Han"}
"""Where the first word of Unicode's name for a character is not the script's."""

PARTS = (
    ("system", "s", "System"),
    ("history", "a", "History"),
    ("prompt", "w", "This prompt"),
    ("frame", "t", "Template"),
)


def bar(budget: Budget, room_in_words: str = "", left_out: Sequence[int] = ()) -> str:
    """`room_in_words`: as `room_words` says it; `left_out`: the turns that there is no room for."""
    used = budget.system + budget.history + budget.prompt + budget.frame
    spare = budget.room - max(0, budget.answer)
    shares = [(look, getattr(budget, name), words) for name, look, words in PARTS if getattr(budget, name)]
    pieces = [*((look, tokens) for look, tokens, _ in shares), ("answer", budget.answer), ("spare", spare)]
    without = f'<span class="out">without {turns_in_words(left_out)}</span>' if left_out else ""
    room = ", ".join(filter(None, (f"Room {max(0, budget.room):,}", verbatim(room_in_words))))
    share = f"{used:,} of {budget.context_length:,} tokens"
    return (
        f'<div class="budget{" over" if budget.room < 1 else ""}">'
        f'<div class="bar" role="img" aria-label="Context: {share}">{"".join(_piece(*each) for each in pieces)}</div>'
        f'<div class="facts"><span class="tokens">{share}</span>{without}'
        f"{''.join(_fact(look, f'{words} {tokens:,}') for look, tokens, words in shares)}"
        f"{_fact('answer', room)}</div></div>"
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


def refusal(seen: Seen, budget: Budget) -> str:
    """Why what is being typed would not be sent, "" if it would."""
    if budget.room > 0 or seen.stage != "typing":
        return ""
    excess = 1 - budget.room
    tokens = "1 token" if excess == 1 else f"{excess:,} tokens"
    return f"Sending this would be refused: it is {tokens} too long for {seen.model}.{_advice(seen)}"


def _advice(seen: Seen) -> str:
    """What would help, if there are turns that could go."""
    earlier = any(message.role == "user" for message in seen.messages[: seen.last])
    if seen.options.when_full == "drop_oldest" or not earlier:
        return ""
    return " Under Prompting, the oldest turns can be left out."


def shortness(seen: Seen, budget: Budget, asked_tokens: int) -> str:
    """That the answer will be shorter than wished, "" if it need not be. `asked_tokens`: the longest that is wished."""
    if not 0 < budget.room < asked_tokens or seen.stage != "typing":
        return ""
    return f"There is room for {budget.room:,} tokens of an answer, not for the {asked_tokens:,} that are asked for."

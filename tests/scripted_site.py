"""What the models of the scripted browser tests say: slowly, wrongly, endlessly, hostilely.

Run as a program with a port and ids of models, it serves them until it is killed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from fakes import FakePool, Script, spec
from playwright.sync_api import Page
from serving import serving

from model_registry.registry import Registry
from playground.errors import OutOfMemoryError
from playground.types import LoadProgress

HOSTILE = (
    "  two spaces first\n\ttab\n\n\n    def f():\n        return '<b>bold</b> &amp; &lt;'\n"
    "<|USER|> $$x^2$$ \\(y\\) **stars** `code` # no heading\n- no list\n<think>hidden</think>\n"
    "![](http://evil.test/a.png) <img src=http://evil.test/b.png onerror=alert(1)> <script>alert(2)</script>\n"
    "<style>body{display:none}</style><a href=http://evil.test>x</a> 안녕하세요 नमस्ते 👩‍👩‍👧\n  "
)
KOREAN = [f"단어{number} " for number in range(60)]


def scripted_pool() -> FakePool:
    names = ("slow", "other", "hostile", "broken", "midway", "hangs", "loads", "quick")
    specs = [spec(name, default_system=f"System of {name}.") for name in names]
    scripts = {
        "slow": Script(KOREAN, 0.05),
        "other": Script(["शब्द "] * 60, 0.05),
        "hostile": Script([HOSTILE[start : start + 7] for start in range(0, len(HOSTILE), 7)], 0.005),
        "broken": Script([], error=OutOfMemoryError("The GPU is full: <b>choose</b> a smaller model.")),
        "midway": Script(["so far "], 0.1, error=RuntimeError("a secret")),
        "hangs": Script(["one "], hangs=True),
        "loads": Script([], loading=[LoadProgress("download", 10**9, 4 * 10**9)], hangs=True),
    }
    return FakePool(Registry([*specs, spec("tiny", stand_in_for="slow")]), scripts)


def until(condition: Callable[[], object], page: Page, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        page.wait_for_timeout(20)


if __name__ == "__main__":
    with serving(scripted_pool(), sys.argv[2:], port=int(sys.argv[1])):
        threading.Event().wait()

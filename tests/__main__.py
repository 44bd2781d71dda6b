"""`python -m tests`: everything that keeps main green, for people and CI alike.

Sees to a browser (an installed Chromium or Chrome, else Playwright's, else Debian's package), then runs the linter, the
formatter's check, the type checker and the tests: those of the browser one by one, the others side by side, one a core.
Further arguments go to pytest, which then runs in one process: `python -m tests -k registry`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from browser_path import installed_browser, playwright_browser

ROOT = Path(__file__).parents[1]
CHECKS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
BROWSER = ["tests/browser"]
"""One after the other: a page, a browser and two models need all that a small machine has."""

BY_FILE = ["--dist", "loadfile", "--no-loadscope-reorder"]
OTHERS = ["--ignore=tests/browser", "-n", "logical", "--maxprocesses", "4", *BY_FILE]
"""Side by side, each file's tests in one process, for they share what they start."""


def main() -> int:
    os.chdir(ROOT)
    provide_browser()
    failed = [" ".join(check) for check in CHECKS if not succeeds([sys.executable, "-m", *check])]
    for tests in [sys.argv[1:]] if sys.argv[1:] else [OTHERS, BROWSER]:
        if not succeeds([sys.executable, "-m", "pytest", *tests]):
            failed.append(f"pytest {' '.join(tests)}")
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def provide_browser() -> None:
    """Leave the machine with a browser that the tests can drive, or stop and say what to install."""
    if installed_browser() or playwright_browser():
        return
    if succeeds([sys.executable, "-m", "playwright", "install", "chromium"]) and playwright_browser():
        return
    apt = ["apt-get"] if os.geteuid() == 0 else ["sudo", "-n", "apt-get"]
    if shutil.which(apt[0]):
        succeeds([*apt, "update", "-qq"])
        succeeds([*apt, "install", "-y", "-qq", "chromium-headless-shell"])
    if not installed_browser():
        sys.exit("No browser to test with: install Chromium or Chrome and run this again.")


def succeeds(command: list[str]) -> bool:
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

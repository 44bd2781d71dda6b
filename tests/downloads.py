"""Downloads as a fresh process sees them, from a Hub on loopback into a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_hub import LocalHub

ROOT = Path(__file__).parents[1]
Process = subprocess.Popen[str]
PROGRAM = """
import json, sys
from model_registry.registry import Registry
from model_registry.spec import Weights
from playground.engines.checkpoints.checkpoint import MODEL_FILES, fetch, is_local
from playground.errors import PlaygroundError

weights = Weights(hub=sys.argv[1], revision=sys.argv[2], bytes=1)
spec = Registry.load().get("kullm3").model_copy(update={"weights": weights})
seen, result = [], {"before": is_local(spec)}
try:
    folder = fetch(spec, MODEL_FILES, lambda done, total: seen.append((done, total)))
    result |= {"files": sorted(path.name for path in folder.iterdir()), "progress": seen}
except PlaygroundError as error:
    result |= {"error": type(error).__name__, "says": str(error)}
print(json.dumps(result | {"after": is_local(spec)}))
"""


def start(hub: LocalHub | str, home: Path, repo: str = "org/model", revision: str = "main", **env: str) -> Process:
    """A fresh process that fetches from this Hub into a cache in `home`."""
    url = hub if isinstance(hub, str) else hub.url
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **env}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, repo, revision],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(hub: LocalHub | str, home: Path, repo: str = "org/model", revision: str = "main", **env: str) -> dict[str, Any]:
    """What that process has to say at its end."""
    with start(hub, home, repo, revision, **env) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result

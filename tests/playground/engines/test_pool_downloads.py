"""The pool before a Hub: a download that is cancelled goes on later, and what the Hub refuses is said in a sentence.

A program of its own asks the pool, for the Hub's address is fixed when huggingface_hub is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub
from tiny import write_tiny_model

ROOT = Path(__file__).parents[3]
STEP = 10 * 2**20
"""What is kept of a download is a multiple of this."""

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from dataclasses import asdict
from model_registry.registry import Registry
from model_registry.spec import Weights
from playground.engines.pool import EnginePool
from playground.errors import PlaygroundError
from playground.placement.plan import Device
from playground.types import GenerationChunk, GenerationRequest, LoadProgress, Message, SamplingParams

catalog, enough, *asked = sys.argv[1:]
tiny = Registry.load(Path(catalog)).get("tiny")

def model(number, repo, revision):
    weights = Weights(hub=repo, revision=revision, bytes=tiny.weights.bytes)
    return tiny.model_copy(update={"id": f"model-{number}", "name": repo, "weights": weights})

specs = [model(number, *each.split("@")) for number, each in enumerate(asked)]

async def ask(pool, spec, enough):
    seen, result = [], {"before": pool.status(spec.id).state}
    request = GenerationRequest(
        model_id=spec.id, messages=(Message(role="user", content="hi"),), sampling=SamplingParams(max_new_tokens=3)
    )
    try:
        async for event in pool.stream(request):
            if isinstance(event, LoadProgress):
                seen.append(asdict(event))
                if event.stage == "download" and event.done_bytes >= enough:
                    pool.cancel(spec.id)
            else:
                result["finish_reason"] = event.finish_reason
    except PlaygroundError as error:
        result |= {"error": type(error).__name__, "says": str(error)}
    status = pool.status(spec.id)
    downloads = [step["done_bytes"] for step in seen if step["stage"] == "download" and step["done_bytes"]]
    return result | {"after": status.state, "detail": status.detail, "downloads": downloads}

async def main():
    pool = EnginePool(Registry(specs), [Device("cpu", "cpu", 16 * 10**9, 16 * 10**9)])
    results = []
    for spec in specs:
        results.append(await ask(pool, spec, int(enough)))
        if results[-1].get("error") == "LoadCancelledError":
            results.append(await ask(pool, spec, 10**12))
    await pool.close()
    print(json.dumps(results))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of more than four steps."""
    path = write_tiny_model(tmp_path_factory.mktemp("repo"), "tiny", hidden=640)
    assert (path.parent / "tiny" / "model.safetensors").stat().st_size > 4 * STEP
    return path


def ask(catalog: Path, home: Path, hub: str, *models: str, enough: int = 10**12, **env: str) -> list[dict[str, Any]]:
    """What the pool says of each "repository@revision"; a download that comes to `enough` bytes is cancelled once."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **env}
    command = [sys.executable, "-c", PROGRAM, str(catalog), str(enough), *models]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    results: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return results


def test_a_cancelled_download_ends_its_process_and_goes_on_later(catalog: Path, tmp_path: Path) -> None:
    repo = catalog.parent / "tiny"
    size = (repo / "model.safetensors").stat().st_size
    with LocalHub({"org/model": repo}, stall_after=3 * STEP + STEP // 2) as hub:
        cancelled, resumed = ask(catalog, tmp_path, hub.url, "org/model@main", enough=3 * STEP)
    assert (cancelled["before"], cancelled["error"], cancelled["after"]) == (
        "download",
        "LoadCancelledError",
        "download",
    )
    assert cancelled["says"] == "Loading org/model was cancelled: ask again to load it."
    assert (resumed["finish_reason"], resumed["after"]) == ("length", "ready")
    assert resumed["downloads"][0] >= 2 * STEP, "what had come, but for what was not written when the process ended"
    assert hub.bytes_sent < size + 2 * STEP


def test_what_the_hub_refuses_is_said_to_who_asks_and_in_the_menu(catalog: Path, tmp_path: Path) -> None:
    repo = catalog.parent / "tiny"
    with LocalHub({"org/gated": "gated", "org/model": {"main": repo, "v1": repo}}) as hub:
        models = ("org/gated@main", "org/nowhere@main", "org/model@v9", "org/model@v1")
        *refused, pinned = ask(catalog, tmp_path, hub.url, *models)
    assert [result["error"] for result in refused] == ["DownloadError"] * 3
    gated, missing, revision = (result["says"] for result in refused)
    assert gated.startswith("org/gated is gated: accept its terms on huggingface.co/org/gated")
    assert missing.startswith("The Hub has no public repository org/nowhere")
    assert revision.startswith("org/model has no revision 'v9'")
    assert [(result["after"], result["detail"]) for result in refused] == [
        ("failed", sentence) for sentence in (gated, missing, revision)
    ]
    assert (pinned["finish_reason"], pinned["after"]) == ("length", "ready")


def test_without_a_network_the_sentence_says_how_to_go_on(catalog: Path, tmp_path: Path) -> None:
    (result,) = ask(catalog, tmp_path, "http://127.0.0.1:9", "org/model@main", HF_HUB_OFFLINE="1")
    assert result["error"] == "DownloadError"
    assert "not on this machine and the Hub cannot be reached" in result["says"]
    assert (result["after"], result["detail"]) == ("failed", result["says"])

"""A real server elsewhere: `transformers serve` with continuous batching, for a stand-in of this repository.

It knows only what transformers knows, so the Krutrim stand-in is served by a process that has registered our port, from
a folder as `python -m model_registry export` writes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import ROOT, START_S, free_port

from model_registry.architectures.export import export
from model_registry.registry import Registry

STARTER = """
import sys
from model_registry.architectures.krutrim import KrutrimForCausalLM, register
from transformers.cli.transformers import main
register()
sys.modules["transformers"].KrutrimForCausalLM = KrutrimForCausalLM  # where the server looks for architectures
main()
"""
MODEL_NAME = "stand-in"
"""The folder's name, by which the server knows the model: it is started where the folder is."""

FEW_BLOCKS = ("--cb-num-blocks", "64", "--cb-max-batch-tokens", "256")
"""Else its cache takes a large part of the machine's memory, which takes longer to fill than a test has."""


def serve_folder(model_id: str, place: Path) -> Path:
    """A folder with what the server needs of a stand-in, `place`/stand-in."""
    spec, folder = Registry.load().get(model_id), place / MODEL_NAME
    place.mkdir()
    if spec.architecture == "krutrim":
        export(spec, folder)
    else:
        folder.symlink_to(str(spec.weights.path), target_is_directory=True)
    return folder


@contextmanager
def real_servers(place: Path, *model_ids: str) -> Iterator[dict[str, RealServer]]:
    """A server for each of the stand-ins, once all answer; files, caches and logs lie in `place`."""
    servers: dict[str, RealServer] = {}
    try:
        for model_id in model_ids:
            servers[model_id] = RealServer(serve_folder(model_id, place / model_id))
        for server in servers.values():
            server.wait()
        yield servers
    finally:
        for server in servers.values():
            server.stop()


class RealServer:
    """`url` is what people type. It has no network but loopback, and no key."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = folder.parent / "server.log"
        cache = folder.parent / "hub"
        cache.mkdir(exist_ok=True)
        options = ("--continuous-batching", *FEW_BLOCKS, "--device", "cpu", "--dtype", "float32")
        place = ("--host", "127.0.0.1", "--port", str(self.port))
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", STARTER, "serve", MODEL_NAME, *options, *place],
                cwd=folder.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "HF_HUB_CACHE": str(cache),
                    "HF_HUB_OFFLINE": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )

    def wait(self) -> None:
        """Returns when it answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"The server does not answer:\n{self._log.read_text()}")

    def kill(self) -> None:
        """As a crash or an operator ends it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()

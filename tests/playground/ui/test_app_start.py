"""What `python app.py` says when it cannot start: a sentence, never a traceback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from raw_page import PageMap
from serving import ROOT, free_port, run_server

import app
from playground.engines.processes import child_process
from playground.errors import CatalogError, PlacementError, UnknownModelError
from playground.placement import quantising
from playground.placement.advice import card

WITHOUT_ENGINES = """
import runpy, sys
from playground.engines.processes import child_process
from playground.placement.plan import Device
child_process.prepare = lambda: None
child_process.in_child = lambda *_: (Device("cpu", "cpu", 8 * 10**9, 8 * 10**9),)
runpy.run_path("app.py", run_name="__main__")
"""
"""The app, but for the process that imports torch."""


def test_an_unknown_model_names_near_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--models", "krutrim-instruct"])
    with pytest.raises(UnknownModelError, match="Did you mean krutrim-1-instruct"):
        app.main()


def test_a_wrong_catalog_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    catalog = tmp_path / "mine.toml"
    catalog.write_text('id = "mine"\nnam = "Mine"\n')
    monkeypatch.setattr(sys, "argv", ["app.py", "--catalog", str(catalog)])
    with pytest.raises(CatalogError, match=r"mine\.toml"):
        app.main()


def test_bits_that_cannot_be_loaded_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--quantise", "8-bit"])
    monkeypatch.setattr(child_process, "in_child", lambda find: (card("cuda:0", 24),))
    monkeypatch.setattr(quantising, "quantisation_available", lambda: False)
    with pytest.raises(PlacementError, match="--quantise 8-bit needs bitsandbytes, which is not installed"):
        app.main()


def test_such_errors_end_the_program_with_their_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        asked = ["--no-browser", "--port", port, "--models", "demo-krutrim"]
        command = [sys.executable, "-c", WITHOUT_ENGINES, *asked]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("app.py: The page cannot be served")
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_interrupt_before_there_is_a_page_ends_it_at_once_and_without_a_word(tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--no-browser", "--models", "demo-krutrim"]
    with (tmp_path / "said").open("w") as said, subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said) as app_:
        try:
            while not psutil.Process(app_.pid).children():  # the fork server: it is in the middle of its imports now
                assert app_.poll() is None
                time.sleep(0.02)
            app_.send_signal(signal.SIGINT)
            assert app_.wait(timeout=30) == -signal.SIGINT
        finally:
            app_.kill()
    assert (tmp_path / "said").read_text() == ""


def test_whoever_comes_over_loopback_makes_up_neither_an_address_nor_a_long_log() -> None:
    port = free_port()
    asked = ["--no-browser", "--port", str(port), "--models", "demo-krutrim", "--public", "--limit"]
    process = run_server(port, "-c", WITHOUT_ENGINES, *asked, "asks_per_minute=1")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            for number, end in enumerate(("complete", "error")):
                event = {"data": ["demo-krutrim", "x" * 100]}
                headers = {"x-forwarded-for": f"192.0.2.{number}"}
                event_id = http.post("/gradio_api/call/tokenize", json=event, headers=headers).json()["event_id"]
                assert f"event: {end}" in http.get(f"/gradio_api/call/tokenize/{event_id}").text
            page = PageMap(http.get("/config").json())
            data = page.inputs(page.ask, **{"prompt": "hi", "Model of panel 1": "x" * 900_000})
            event = {"fn_index": page.ask["id"], "data": data, "session_hash": "s"}
            assert http.post("/gradio_api/run/predict", json=event).status_code == 500
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert "characters … " in said
    assert "Exception ignored" not in said
    assert len(said) < 20_000

"""`python -m playground.placement`: the table, the sentences, and what it says to wrong questions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_tiny_model

import playground.placement.__main__ as command
from playground.placement import devices
from playground.placement.__main__ import main
from playground.placement.advice import card

ROOT = Path(__file__).parents[3]


def test_the_plan_for_two_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "16,2x16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[2:5]]
    assert [row[:4] for row in rows] == [
        ["krutrim-1-instruct", "cuda:0", "0-31", "bfloat16"],
        ["kullm3", "cuda:1", "0-23", "float16"],
        ["kullm3", "cuda:2", "24-47", "float16"],
    ]
    for row in rows:
        weight, kv, working, total = map(float, row[4:8])
        assert total == pytest.approx(weight + kv + working, abs=0.02)
    assert "cuda:1: 13.53 of 16.84 GB taken" in lines
    assert any(line.startswith("KULLM3: layers 0-23 on cuda:1, 24-47 on cuda:2, because 21.5 GB fit") for line in lines)


def test_cards_in_use_contexts_and_bits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "80-60", "--models", "krutrim", "--contexts", "2", "--quantise", "8-bit"]) == 0
    out = capsys.readouterr().out
    assert "of 19.76 GB taken" in out
    assert "with 8-bit weights, as asked; room for 2 full contexts." in out


def test_imagined_cpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "none", "--cpu-gb", "128"]) == 0
    assert "KULLM3: whole on the CPU in float32" in capsys.readouterr().out
    assert main(["--gpus", "6", "--cpu-gb", "48", "--models", "kullm3", "--offload"]) == 0
    assert "travel to cuda:0 for every token" in capsys.readouterr().out


def test_models_of_a_catalog_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiny_model(tmp_path, "mine")
    assert main(["--gpus", "8", "--catalog", str(path), "--models", "mine"]) == 0
    assert "Tiny mine: whole on cuda:0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--gpus", "8"], 1, "do not fit together: "),
        (["--gpus", "8", "--models", "kulm3"], 2, "There is no model 'kulm3' in the catalog. Did you mean kullm3"),
        (["--gpus", "8", "--catalog", "/nowhere.toml"], 2, "/nowhere.toml cannot be read"),
    ],
)
def test_errors_are_sentences(arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpus", "24,big"], "--gpus: write sizes in GB such as 24,24 or 4x16"),
        (["--gpus", "-5"], "--gpus"),
        (["--gpus", ""], "--gpus: write sizes in GB"),
        (["--gpus", "24,0x24"], "--gpus: '0x24' is no card: for a machine without GPUs write none"),
        (["--gpus", "0"], "--gpus: '0' is no card"),
        (["--gpus", "16-20"], "--gpus: '16-20' is a card with more memory in use than it has"),
        (["--gpus", "24", "--models", ""], "--models: give model ids separated by commas, not ''"),
        (["--gpus", "24", "--models", " , "], "--models: give model ids"),
        (["--contexts", "0"], "--contexts: give a number from 1 to 1000, not '0'"),
        (["--cpu-gb", "much"], "--cpu-gb: give a size in GB, not 'much'"),
        (["--quantise", "2-bit"], "--quantise"),
    ],
)
def test_wrong_arguments_end_the_program(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert says in capsys.readouterr().err


def test_as_a_program_it_needs_no_torch() -> None:
    code = "import sys, playground.placement.__main__ as m; m.main(['--gpus', '80']); sys.exit('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Krutrim-1 Instruct: whole on cuda:0" in ran.stdout


def test_what_this_machine_cannot_load_is_not_planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "quantisation_available", lambda: False)
    monkeypatch.setattr(devices, "find_devices", lambda: (card("cuda:0", 16),))
    assert main(["--models", "kullm3"]) == 1
    assert "`pip install bitsandbytes==0.50.2`" in capsys.readouterr().err
    assert main(["--models", "demo-kullm3", "--quantise", "8-bit"]) == 1
    assert capsys.readouterr().err.startswith("--quantise 8-bit needs bitsandbytes")
    assert main(["--models", "demo-kullm3"]) == 0
    assert "An imagined machine has bitsandbytes" not in capsys.readouterr().out


def test_an_imagined_machine_can_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "quantisation_available", lambda: False)
    assert main(["--gpus", "16"]) == 0
    out = capsys.readouterr().out
    assert "with 4-bit weights" in out
    assert "An imagined machine has bitsandbytes for quantised weights (`pip install bitsandbytes==0.50.2`)." in out


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", "demo-krutrim,demo-kullm3"]) == 0
    assert "KULLM3 stand-in: whole on " in capsys.readouterr().out

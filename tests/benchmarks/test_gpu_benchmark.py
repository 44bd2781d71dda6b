"""That gpu.py measures what it says: its arithmetic by hand-made figures, and the whole script in small."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import answers, figures, gpu_options, random_models

SCRIPT = Path(__file__).with_name("gpu.py")
LIMITS = {"krutrim": 4.9e-3, "kullm3": 7.2e-3}
ONE, OTHER = answers.Way("processes", "alone"), answers.Way("processes", "together")


def run(krutrim: float | None, kullm3: float | None, first_token_s: float = 0.1) -> figures.Run:
    speeds = {"krutrim": krutrim, "kullm3": kullm3}
    return {name: {"tokens_per_second": speed, "first_token_s": first_token_s} for name, speed in speeds.items()}


RUNS = [run(90, 30), run(40, 80), run(85, 75)]
PLAIN_RUNS = [run(20, 20), run(15, 15), run(20, 30)]


def summarised(runs: list[figures.Run], plain: list[figures.Run]) -> dict[str, Any]:
    return figures.summary({"processes": {"together": runs}, "generate": {"together": plain}}, LIMITS)


def test_the_part_of_the_limit_is_worked_out_in_each_run() -> None:
    parts = [figures.of_limit(its, LIMITS) for its in RUNS]
    assert parts == pytest.approx([0.657, 0.772, 0.9565])
    found = summarised(RUNS, PLAIN_RUNS)["processes"]["together"]["of_limit"]
    assert found == pytest.approx({"median": 0.772, "least": 0.657, "most": 0.9565, "runs": 3})


def test_the_ratio_to_the_threads_is_worked_out_in_each_pair_of_runs() -> None:
    found = summarised(RUNS, PLAIN_RUNS)["over_threads"]
    assert found == pytest.approx({"median": 3.2, "least": 3.0, "most": 4.0, "runs": 3})


def test_the_median_of_two_is_between_them() -> None:
    assert figures.spread([1.0, 4.0])["median"] == 2.5


def test_a_run_without_a_speed_does_not_count() -> None:
    found = summarised([run(None, 30), *RUNS[1:]], PLAIN_RUNS)
    assert found["processes"]["together"]["of_limit"] == pytest.approx(
        {"median": (0.772 + 0.9565) / 2, "least": 0.772, "most": 0.9565, "runs": 2}
    )
    with pytest.raises(ValueError, match="longer answers"):
        summarised([run(None, 30)], PLAIN_RUNS[:1])


def said(one: str, other: str, *, sampled: bool = False, way: answers.Way = OTHER) -> answers.Answers:
    found = answers.Answers()
    question = answers.Question("krutrim", 0, sampled)
    found.add(question, ONE, one)
    found.add(question, way, other)
    return found


def test_nothing_is_called_the_same_that_was_not_compared() -> None:
    found = said("w1 w2", "w1 w2")
    assert {aspect: len(list(found.pairs(aspect))) for aspect in answers.ASPECTS} == {
        "alone and together": 1,
        "in processes and in one": 0,
        "with graphs and without": 0,
        "our engines and generate": 0,
    }
    assert found.differences("alone and together") == []


@pytest.mark.parametrize(
    ("dtype", "gap", "is_fault"),
    [("bfloat16", 0.07, False), ("bfloat16", 0.09, True), ("float16", 0.009, False), ("float16", 0.011, True)],
)
def test_only_a_near_tie_may_be_decided_by_rounding(dtype: str, gap: float, is_fault: bool) -> None:
    logits = torch.tensor([1.0, -1.0] * 500)
    logits[3] = 1.0 - gap
    (difference,) = said("w7 w2 w5", "w7 w3 w5").differences("alone and together")
    assert (difference.common, difference.candidates) == ((7,), (2, 3))
    sentence, found = answers.verdict(difference, dtype, lambda its: answers.margin(logits, its.candidates or (0, 0)))
    assert found is is_fault
    assert "differ from token 1 on" in sentence


def test_two_tokens_that_tie_far_below_the_best_are_no_near_tie() -> None:
    assert answers.margin(torch.tensor([1.0, 1.0, -1.0, -1.0]), (2, 3)) == pytest.approx(2)


def no_margin(difference: answers.Difference) -> float:
    raise AssertionError("nobody should ask for logits")


def test_an_answer_that_ends_early_is_a_fault() -> None:
    (difference,) = said("w7 w2", "w7").differences("alone and together")
    assert answers.verdict(difference, "bfloat16", no_margin)[1]


@pytest.mark.parametrize(("dtype", "is_fault"), [("float32", True), ("bfloat16", False)])
def test_sampled_answers_are_judged_in_float32_only(dtype: str, is_fault: bool) -> None:
    (difference,) = said("w7", "w8", sampled=True).differences("alone and together")
    assert answers.verdict(difference, dtype, no_margin)[1] is is_fault


def test_generate_may_answer_otherwise() -> None:
    found = said("w7", "w8", way=answers.Way("generate", "alone"))
    (difference,) = found.differences("our engines and generate")
    assert not answers.verdict(difference, "bfloat16", lambda its: 5.0)[1]


def test_the_models_run_with_the_attention_that_the_loader_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_models, "attention_for", lambda place: "eager")
    for spec in random_models.specs(small=True):
        assert random_models.random_model(spec, "cpu").config._attn_implementation == "eager"


@pytest.mark.parametrize(("free", "layers"), [(128e9, 32), (37e9, 32), (24e9, 20), (1e9, 1)])
def test_the_logits_are_compared_at_the_greatest_depth_that_fits(free: float, layers: int) -> None:
    spec = random_models.specs(small=False)[0].model_copy(update={"dtype": "float32"})
    assert random_models.deepest(spec, int(free)) == layers
    assert layers == 1 or random_models.meta_bytes(spec, layers) < 0.8 * free


def numbers(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in numbers(branch)]
    return [tree]


def test_the_script_gives_every_figure_that_it_promises(tmp_path: Path) -> None:
    sizes = ["--small", "--tokens", "24", "--repeats", "2", "--json", str(tmp_path / "figures.json")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), *sizes], env=environment, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    summary = found["summary"]
    for where in ("processes", "one process", "generate"):
        for how in ("alone", "together"):
            for model in LIMITS:
                assert set(summary[where][how][model]) == {"tokens_per_second", "of_limit", "first_token_s"}
            assert (how == "together") == ("of_limit" in summary[where][how])
    promised = [*numbers(summary), *numbers(found["bandwidth"]), found["logits"]["relative_error"]]
    assert all(math.isfinite(figure) and figure > 0 for figure in promised)
    assert "over_threads" in summary
    assert found["logits"]["layers"] == found["logits"]["of_layers"]
    assert found["machine"]["attention"] == {"krutrim": "sdpa", "kullm3": "sdpa"}
    for aspect in ("alone and together", "in processes and in one"):
        assert found["answers"][aspect]["compared"] > 0
        assert found["answers"][aspect]["differing"] == []
    assert "with graphs and without: not compared" in done.stdout


def test_a_ratio_of_what_was_left_out_is_not_claimed() -> None:
    assert figures.lines(figures.summary({}, {})) == ["over two threads of generate: not compared"]


@pytest.mark.parametrize("wrong", [["--skip", "proceses"], ["--skip", "logits", "thread"], ["--repeats", "0"]])
def test_a_wrong_option_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_options.parse("", wrong)
    assert wrong[-1] in capsys.readouterr().err

"""Which attention is chosen; the machine here has no GPU, so the choice is asked with figures."""

from __future__ import annotations

import pytest
from placements import placed

from model_registry.registry import Registry
from model_registry.spec import Dtype
from playground.engines.checkpoints.attention import attention_for, choose_attention

HOPPER, AMPERE, TURING = (9, 0), (8, 0), (7, 5)


@pytest.mark.parametrize(
    ("dtype", "devices", "installed", "capabilities", "chosen"),
    [
        ("bfloat16", ["cuda:0"], True, [HOPPER], "flash_attention_2"),
        ("float16", ["cuda:0", "cuda:1"], True, [AMPERE, AMPERE], "flash_attention_2"),
        ("bfloat16", ["cuda:0"], False, [HOPPER], "sdpa"),
        ("float32", ["cuda:0"], True, [HOPPER], "sdpa"),
        ("float16", ["cuda:0"], True, [TURING], "sdpa"),
        ("float16", ["cuda:0", "cuda:1"], True, [AMPERE, TURING], "sdpa"),
        ("float16", ["cuda:0", "cpu"], True, [AMPERE], "flash_attention_2"),
        ("bfloat16", ["cpu"], True, [], "sdpa"),
    ],
)
def test_flash_attention_is_taken_where_it_can_run(
    dtype: Dtype, devices: list[str], installed: bool, capabilities: list[tuple[int, int]], chosen: str
) -> None:
    assert choose_attention(dtype, devices, flash_installed=installed, capabilities=capabilities) == chosen


def test_the_cpu_runs_with_torchs_own() -> None:
    spec = Registry.load().get("demo-krutrim")
    assert attention_for(placed(spec, dtype="bfloat16")) == "sdpa"

"""Whatever is done to a good adapter's files: it is refused with a sentence, or it really loads and harms nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_adapters import CONFIG, WEIGHTS, edit_config, edit_tensors, load_with_peft, read_parts, write_parts
from transformers import PreTrainedModel

from playground.adapters.config import UNDERSTOOD
from playground.adapters.facts import BaseLayers, Limits
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError

LIMITS = Limits(pattern_seconds=0.5)
EXAMPLES = settings(max_examples=120, suppress_health_check=list(HealthCheck))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
LIKELY = st.sampled_from(
    [4, 8, 2, 16, True, False, None, "none", "q_proj", ["q_proj"], ["v_proj", "q_proj"], "all-linear", {}, [], 0, 0.1,
     "gaussian", {"q_proj": 4}, {"q_proj": 2}, ".*[qv]_proj", "LORA", "CAUSAL_LM", [0, 1], ["layers"], ["lm_head"]]
)  # fmt: skip
NAMES = st.sampled_from(sorted(UNDERSTOOD)) | st.text(max_size=8)
FIELDS = st.dictionaries(NAMES, LIKELY | JSON, max_size=3)


def check(folder: Path, base: BaseLayers, model: PreTrainedModel) -> bool:
    """Whether the adapter was accepted; fails unless it then loads completely and the base stays as it was."""
    try:
        facts = inspect_adapter(folder, base, LIMITS)
    except AdapterError as error:
        str(error).encode()
        return False
    adapted = load_with_peft(facts, folder, model)
    plain = model.state_dict()
    held = {name.replace(".base_layer", ""): tensor for name, tensor in adapted.base_model.model.state_dict().items()}
    assert all(torch.equal(held[name], tensor) for name, tensor in plain.items())
    assert all(bool(tensor.isfinite().all()) for tensor in held.values())
    return True


@pytest.fixture
def folder(good_once: Path) -> Path:
    """A folder for all examples of one test, each of which begins by `renew`."""
    return Path(tempfile.mkdtemp(dir=good_once.parent))


def renew(folder: Path, good_once: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(good_once / name, folder / name)


@pytest.mark.filterwarnings("ignore:Possible (nested set|set difference|set union|set intersection):FutureWarning")
@EXAMPLES
@given(fields=FIELDS)
def test_any_config(
    folder: Path, good_once: Path, llama: PreTrainedModel, llama_base: BaseLayers, fields: dict[str, Any]
) -> None:
    renew(folder, good_once)
    edit_config(folder, **fields)
    check(folder, llama_base, llama)


SPECIAL = st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 65504.0, 65520.0, 3e38, 1e-40])
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])


@EXAMPLES
@given(data=st.data())
def test_any_tensors(
    folder: Path, good_once: Path, llama: PreTrainedModel, llama_base: BaseLayers, data: st.DataObject
) -> None:
    renew(folder, good_once)

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        name = data.draw(st.sampled_from(sorted(tensors)))
        match data.draw(st.sampled_from(["value", "shape", "dtype", "rename", "drop", "rank"])):
            case "value":
                tensors[name].view(-1)[data.draw(st.integers(0, tensors[name].numel() - 1))] = data.draw(SPECIAL)
            case "shape":
                tensors[name] = torch.zeros(data.draw(st.lists(st.integers(0, 20), max_size=3)))
            case "dtype":
                tensors[name] = tensors[name].to(data.draw(DTYPES))
            case "rename":
                tensors[data.draw(st.text(max_size=20))] = tensors.pop(name)
            case "drop":
                del tensors[name]
            case "rank":
                r = data.draw(st.integers(1, 5))
                tensors |= {n: t[:r].clone() if "lora_A" in n else t[:, :r].clone() for n, t in tensors.items()}
                edit_config(folder, r=data.draw(st.sampled_from([r, 4])))

    edit_tensors(folder, edit)
    check(folder, llama_base, llama)


@EXAMPLES
@given(data=st.data())
def test_any_header(
    folder: Path, good_once: Path, llama: PreTrainedModel, llama_base: BaseLayers, data: st.DataObject
) -> None:
    renew(folder, good_once)
    header, content = read_parts(folder)
    entry = header[data.draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))]
    entry[data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = data.draw(
        st.lists(st.integers(0, 600), max_size=3) | st.sampled_from(["F32", "BF16"]) | JSON
    )
    text = json.dumps(header).encode()
    length = data.draw(st.sampled_from([None, len(text) + 1, len(text) - 1, 2**63, 2**64 - 1]))
    write_parts(folder, text, content, length)
    check(folder, llama_base, llama)


@EXAMPLES
@given(data=st.data())
def test_any_bytes(
    folder: Path, good_once: Path, llama: PreTrainedModel, llama_base: BaseLayers, data: st.DataObject
) -> None:
    renew(folder, good_once)
    path = folder / data.draw(st.sampled_from([CONFIG, WEIGHTS]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content[: data.draw(st.sampled_from([None, place]))])
    check(folder, llama_base, llama)


def test_the_check_accepts_what_is_good_and_sees_what_is_not(
    good: Path, llama: PreTrainedModel, llama_base: BaseLayers
) -> None:
    assert check(good, llama_base, llama)
    edit_config(good, r=3)
    assert not check(good, llama_base, llama)

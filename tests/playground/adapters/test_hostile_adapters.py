"""Adapters made to do harm, each as real files: refused or warned about, and nothing of them is run or loaded."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from tiny_adapters import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    edit_config,
    edit_tensors,
    read_parts,
    write_parts,
)
from transformers import PreTrainedModel

from playground.adapters.facts import BaseLayers, Limits
from playground.adapters.inspect import inspect_adapter
from playground.errors import AdapterError

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whoever loads anything while an adapter is inspected fails the test."""
    request.getfixturevalue("good_once")  # made with these very functions

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something was loaded")

    for module, name in (
        (torch, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (safetensors, "safe_open"),
        (safetensors.torch, "load_file"),
    ):
        monkeypatch.setattr(module, name, refuse)


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def refusal(folder: Path, base: BaseLayers, **limits: Any) -> str:
    with pytest.raises(AdapterError) as caught:
        inspect_adapter(folder, base, Limits(**limits))
    assert type(caught.value) is AdapterError
    return str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "weights.PKL"])
def test_a_pickle_alone_is_refused_and_one_beside_is_never_read(
    good: Path, llama_base: BaseLayers, name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "was-run"
    (good / name).write_bytes(pickle.dumps(Payload(mark)))
    (warning,) = inspect_adapter(good, llama_base).warnings
    assert warning == f"The folder also holds pickles, which can run code: '{name}'. They are never read."
    (good / WEIGHTS).unlink()
    assert refusal(good, llama_base) == (
        f"The adapter has its weights as a pickle only ('{name}'), which can run code when it is read: ask its author "
        "for adapter_model.safetensors."
    )
    assert not mark.exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused(good: Path, llama_base: BaseLayers, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    (good / WEIGHTS).write_bytes(pickle.dumps(Payload(mark)))
    assert WEIGHTS in refusal(good, llama_base)
    assert not mark.exists()


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"init_lora_weights": "pissa"}, "`init_lora_weights` is 'pissa', but it must be True or False or 'gaussian'"),
    ({"init_lora_weights": "pissa_niter_4"}, "`init_lora_weights` is 'pissa_niter_4'"),
    ({"init_lora_weights": "olora"}, "`init_lora_weights` is 'olora'"),
    ({"modules_to_save": ["lm_head"]}, "`modules_to_save` is ['lm_head'], which replaces whole layers of the base"),
    ({"use_dora": True}, "`use_dora` is True, which rescales the base's own weights"),
    ({"r": 9999}, "`r` is 9999, but a rank must be a whole number from 1 to 256"),
    ({"target_modules": ["q_proj", "v_proj", "no_proj"]}, "`target_modules` names 'no_proj', which this model has not"),
    ({"target_modules": "nothing.*"}, "`target_modules` 'nothing.*' means no layer of this model"),
    ({"target_modules": ["embed_tokens"]}, "also means 'model.embed_tokens', which is no Linear layer of this model"),
    ({"target_modules": ".*"}, "`target_modules` also means"),
    ({"target_modules": ["mlp"]}, "also means 'model.layers.0.mlp', which is no Linear layer of this model"),
    ({"target_modules": r"(?:\w|\.|[a-z])*[A-Z]"}, "a pattern in `target_modules` takes too long to match"),
    ({"target_modules": "((a{999}){999}){999}"}, "a pattern in `target_modules` is too long or repeats too much"),
    ({"rank_pattern": {"(": 4}}, "`rank_pattern` is no valid regular expression, '(': "),
    ({"auto_mapping": {"parent_library": "os"}}, "`auto_mapping` is {'parent_library': 'os'}, which names Python code"),
    ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "`megatron_config` is {'a': 1}, which names Python code"),
    ({"new_trick": {"on": True}}, "the field 'new_trick' is not known here and could change the base"),
]


@pytest.mark.parametrize(("fields", "says"), CONFIGS, ids=str)
def test_a_config_that_does_harm_is_refused(
    good: Path, llama_base: BaseLayers, fields: dict[str, Any], says: str
) -> None:
    edit_config(good, **fields)
    sentence = refusal(good, llama_base, pattern_seconds=0.2)
    assert sentence.startswith(f"{CONFIG}: ")
    assert says in sentence


Edit = Callable[[dict[str, torch.Tensor]], object]
TENSORS: list[tuple[Edit, str]] = [
    (lambda t: t.update({A0: torch.zeros(3, 16)}), f"'{A0}' has shape [3, 16], but rank 4 (`r` in {CONFIG}) and the"),
    (lambda t: t.update({B0: torch.zeros(17, 4)}), f"'{B0}' has shape [17, 4], but rank 4"),
    (lambda t: t.update({A0: torch.zeros(64)}), "has shape [64], but rank 4"),
    (lambda t: t.update({A0: torch.full((4, 16), torch.nan)}), f"'{A0}' holds NaN or infinity: the adapter is damaged"),
    (lambda t: t[B0][3, 2].fill_(-torch.inf), f"'{B0}' holds NaN or infinity"),
    (lambda t: t.update({B0: torch.full((16, 4), torch.inf, dtype=torch.bfloat16)}), "holds NaN or infinity"),
    (lambda t: t.update({B0: torch.full((16, 4), torch.nan, dtype=torch.float16)}), "holds NaN or infinity"),
    (lambda t: t[B0][0, 0].fill_(-65536.0), f"'{B0}' holds a number beyond 65,504, the limit of float16"),
    (lambda t: t.pop(B0), f"has no lora_B for the layer '{Q0}': '{B0}' is missing"),
    (lambda t: t.pop(A0), f"has no lora_A for the layer '{Q0}': '{A0}' is missing"),
    (lambda t: t.clear(), f"has no lora_A for the layer '{Q0}'"),
    (lambda t: t.update({"extra": torch.zeros(1)}), "holds 'extra', which adapter_config.json does not call for"),
    (
        lambda t: t.update({f"{PREFIX}lm_head.weight": torch.zeros(64, 16)}),
        f"holds '{PREFIX}lm_head.weight', which {CONFIG} does not call for: it would replace weights of the base",
    ),
    (
        lambda t: t.update({A0: torch.zeros(4, 16, dtype=torch.float64)}),
        "has dtype 'F64', but must be F32, F16 or BF16",
    ),
    (lambda t: t.update({A0: torch.zeros(4, 16, dtype=torch.int8)}), "has dtype 'I8', but must be F32, F16 or BF16"),
]


@pytest.mark.parametrize(("edit", "says"), TENSORS, ids=[says for _, says in TENSORS])
def test_tensors_that_do_not_fit_are_refused(
    good: Path, llama_base: BaseLayers, monkeypatch: pytest.MonkeyPatch, edit: Edit, says: str
) -> None:
    with monkeypatch.context() as undone:
        undone.undo()
        edit_tensors(good, edit)
    sentence = refusal(good, llama_base)
    assert sentence.startswith(WEIGHTS)
    assert says in sentence


def test_a_header_that_claims_two_gigabytes_is_refused_by_its_length(good: Path, llama_base: BaseLayers) -> None:
    header, data = read_parts(good)
    write_parts(good, header, data, length=2 << 30)
    assert refusal(good, llama_base) == (
        f"{WEIGHTS} claims a header of 2,147,483,648 bytes, more than the 4,194,304 that are allowed: it is damaged, "
        "or made to fill the memory."
    )
    os.truncate(good / WEIGHTS, 3 << 30)  # a sparse file, so that the claim could be true
    assert "claims a header of 2,147,483,648 bytes" in refusal(good, llama_base, weight_bytes=4 << 30)
    assert "takes 3,221,225,472 bytes, more than the 2,147,483,648 that are allowed" in refusal(good, llama_base)


@pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
def test_a_truncated_file_is_refused(good: Path, llama_base: BaseLayers, size: int) -> None:
    whole = (good / WEIGHTS).read_bytes()
    (good / WEIGHTS).write_bytes(whole[:size])
    assert refusal(good, llama_base).startswith(f"{WEIGHTS} is cut off: ")


def test_adapters_of_a_split_conversion_are_refused_on_fused_layers(
    good: Path, krutrim: PreTrainedModel, krutrim_base: BaseLayers
) -> None:
    reason = "it was trained on another conversion of the model, with"
    assert reason in refusal(good, krutrim_base)
    edit_config(good, target_modules=r".*\.(q_proj|v_proj)")
    assert reason in refusal(good, krutrim_base)
    edit_config(good, target_modules=["Wqkv"])
    assert "Wqkv" in refusal(good, krutrim_base)


def test_a_path_that_goes_up_is_refused(good: Path, llama_base: BaseLayers) -> None:
    sentence = refusal(good / ".." / good.name, llama_base)
    assert "goes up with '..'" in sentence


@pytest.mark.parametrize("name", ["no\0thing", "half\ud800", "nowhere", "a" * 5000])
def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path, llama_base: BaseLayers, name: str) -> None:
    sentence = refusal(tmp_path / name, llama_base)
    assert "There is no adapter folder" in sentence
    sentence.encode()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_links_out_of_the_folder_are_refused(good: Path, llama_base: BaseLayers, tmp_path: Path, name: str) -> None:
    (good / name).rename(tmp_path / "elsewhere")
    (good / name).symlink_to(tmp_path / "elsewhere")
    assert refusal(good, llama_base) == f"{name} is a link out of the adapter's folder: put the file itself there."
    (good / name).unlink()
    (good / name).symlink_to(name)
    assert f"{name} cannot be read" in refusal(good, llama_base)


def test_links_within_the_folder_are_followed(good: Path, llama_base: BaseLayers) -> None:
    (good / WEIGHTS).rename(good / "blob")
    (good / WEIGHTS).symlink_to("blob")
    assert inspect_adapter(good, llama_base).r == 4


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device"])
def test_what_is_no_regular_file_is_not_opened(
    good: Path, llama_base: BaseLayers, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (good / name).unlink()
    monkeypatch.chdir(good)
    if kind == "fifo":
        os.mkfifo(good / name)  # to open it would wait for a writer for ever
    elif kind == "folder":
        (good / name).mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    else:
        (good / name).symlink_to("/dev/zero")
    sentence = refusal(good, llama_base)
    assert "was not opened" in sentence or (kind == "device" and "link out of the adapter's folder" in sentence)


def test_a_missing_file_is_named(good: Path, llama_base: BaseLayers) -> None:
    (good / WEIGHTS).unlink()
    assert refusal(good, llama_base).startswith(f"{WEIGHTS} is missing from the adapter's folder")
    (good / CONFIG).unlink()
    assert refusal(good, llama_base).startswith(f"{CONFIG} is missing from the adapter's folder")


JSONS = [
    (b"[" * 100_000, "is nested too deeply"),
    (b'{"a":' * 100_000, "is nested too deeply"),
    (b'{"r": 4, "r": 8}', "the key 'r' is there twice"),
    (b'{"lora_alpha": NaN}', "NaN is no JSON number"),
    (b'{"lora_alpha": 1e999, "peft_type": "LORA", "task_type": "CAUSAL_LM"}', "`lora_alpha` is inf"),
    (b'{"r": ' + b"9" * 5000 + b"}", "is no valid JSON"),
    (b'{"peft_type": "LORA\xff"}', "is no valid JSON"),
    (b"[]", "is no JSON object"),
    (b"", "is no valid JSON"),
    (b'{"peft_type": "\\ud800"}', "`peft_type` is '\\ud800', but it must be 'LORA'"),
    (b'{"\\u202egpj.exe": 1}', "the field '\\u202egpj.exe' is not known here"),
    (b" " * (1 << 20) + b"{}", "is larger than the 1,048,576 bytes that are allowed"),
]


@pytest.mark.parametrize(("content", "says"), JSONS, ids=[says for _, says in JSONS])
def test_json_made_to_break_parsers_is_refused(good: Path, llama_base: BaseLayers, content: bytes, says: str) -> None:
    (good / CONFIG).write_bytes(content)
    sentence = refusal(good, llama_base)
    assert sentence.startswith(CONFIG)
    assert says in sentence
    sentence.encode()  # it can be shown


HEADERS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda h: h[B0].update(data_offsets=h[A0]["data_offsets"]), "overlaps the tensor before it"),
    (lambda h: h[A0].update(data_offsets=[0, 10**9]), "has not the bytes that its shape"),
    (lambda h: h[A0].update(data_offsets=[-256, 0]), "has data_offsets that are none"),
    (lambda h: h[A0].update(data_offsets=[1]), "has data_offsets that are none"),
    (lambda h: h[A0].update(data_offsets="all"), "has data_offsets that are none"),
    (lambda h: h[A0].update(shape=[10**30, 0]), "has a shape that is none"),
    (lambda h: h[A0].update(shape=[1] * 1000), "has a shape that is none"),
    (lambda h: h[A0].update(shape=[True, 64]), "has a shape that is none"),
    (lambda h: h[A0].update(dtype="PYTHON"), "has dtype 'PYTHON'"),
    (lambda h: h[A0].update(more=1), "must have dtype, shape and data_offsets and nothing else"),
    (lambda h: h.update({A0: None}), "must have dtype, shape and data_offsets"),
    (lambda h: h.update(__metadata__={"format": 1}), "`__metadata__` in its header is not a table of texts"),
]


@pytest.mark.parametrize(("edit", "says"), HEADERS, ids=[says for _, says in HEADERS])
def test_a_header_that_lies_is_refused(good: Path, llama_base: BaseLayers, edit: Callable, says: str) -> None:
    header, data = read_parts(good)
    edit(header)
    write_parts(good, header, data)
    sentence = refusal(good, llama_base)
    assert sentence.startswith(WEIGHTS)
    assert says in sentence


def test_bytes_that_belong_to_no_tensor_are_refused(good: Path, llama_base: BaseLayers) -> None:
    header, data = read_parts(good)
    write_parts(good, header, data + b"more")
    assert "has 4 bytes at its end that belong to no tensor" in refusal(good, llama_base)
    shifted = {k: v | {"data_offsets": [o + 4 for o in v["data_offsets"]]} for k, v in header.items() if k[0] == "b"}
    write_parts(good, shifted, b"more" + data)
    assert "leaves a gap before it" in refusal(good, llama_base)
    write_parts(good, b"[" * 100_000, data)
    assert "has no safetensors header" in refusal(good, llama_base)
    write_parts(good, b'{"a":' * 100_000, data)
    assert "its header is nested too deeply" in refusal(good, llama_base)
    write_parts(good, b'{"a": 1, "a": 1}', data)
    assert "the key 'a' is there twice" in refusal(good, llama_base)
    (good / WEIGHTS).write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "has no lora_A for the layer" in refusal(good, llama_base)

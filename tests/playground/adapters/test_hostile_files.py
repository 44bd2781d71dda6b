"""Files made to do harm, each a real one: refused or warned about, and nothing of them is run, loaded or waited for."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_adapters import CONFIG, PREFIX, WEIGHTS, read_parts, refusal, write_parts

from playground.adapters.facts import BaseLayers
from playground.adapters.inspect import inspect_adapter

pytestmark = pytest.mark.usefixtures("nothing_is_loaded")

Q0 = "model.layers.0.self_attn.q_proj"
A0, B0 = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


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


def test_a_path_that_goes_up_is_refused(good: Path, llama_base: BaseLayers) -> None:
    sentence = refusal(good / ".." / good.name, llama_base)
    assert "goes up with '..'" in sentence


@pytest.mark.parametrize(
    "name", ["no\0thing", pytest.param("half\ud800", id="half a character"), "nowhere", "a" * 5000]
)
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
    (b'{"base_model_name_or_path": "x\\ud800y"}', "half a character"),
    (b'{"\\udfff": null}', "half a character"),
    (b'{"lora_alpha": NaN}', "NaN is no JSON number"),
    (b'{"lora_alpha": 1e999, "peft_type": "LORA", "task_type": "CAUSAL_LM"}', "`lora_alpha` is inf"),
    (b'{"r": ' + b"9" * 5000 + b"}", "is no valid JSON"),
    (b'{"peft_type": "LORA\xff"}', "is no valid JSON"),
    (b"[]", "is no JSON object"),
    (b"", "is no valid JSON"),
    (b'{"peft_type": "\\ud800"}', "half a character"),
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

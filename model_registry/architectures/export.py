"""A checkpoint of the catalog as a folder that other programs can serve, by the port that vllm_plugin.py gives them.

Called by `python -m model_registry export`. The original's config.json names an architecture that they have otherwise,
or code that they would have to run; the folder's names the port. Downloads nothing; knows no engine and no server.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from transformers import AutoTokenizer, PreTrainedConfig

from model_registry.architectures.krutrim import KrutrimForCausalLM
from model_registry.architectures.krutrim_config import KrutrimConfig
from model_registry.spec import ModelSpec, PromptFormat
from playground.errors import CheckpointError, DownloadError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja")
SMALL_FILES = (*TOKENIZER_FILES, "generation_config.json", INDEX)
TEMPLATE_FILE = "chat_template.jinja"
SAMPLE = "नमस्ते 안녕 Hello"


def export(spec: ModelSpec, target: Path, source: Path | None = None) -> list[str]:
    """Write the folder; gives the names of its files. Weights are linked, or copied where they are on another disk.

    Args:
        spec: the model.
        target: the folder, new or empty.
        source: where its files are; by default where the catalog says, which may be in the Hub's cache.

    Raises:
        CheckpointError: the model needs no such folder, files are missing or wrong, or it cannot be written.
        DownloadError: the files are not in the Hub's cache.
    """
    if spec.architecture != "krutrim":
        where = spec.weights.hub or spec.weights.path
        raise CheckpointError(f"{spec.name} needs no export: servers load {where} as it is.")
    source = source or _folder_of(spec)
    with _sentences(spec, source):
        config, weights, template = _config(source), _weight_files(source), _template(spec.prompt, source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is not an empty folder: give one that is new or empty.")
    with _sentences(spec, source):
        config.save_pretrained(target)
        for path in (path for pattern in SMALL_FILES for path in sorted(source.glob(pattern))):
            shutil.copyfile(path, target / path.name)
        if template is not None:
            (target / TEMPLATE_FILE).write_text(template, encoding="utf-8")
        for name in weights:
            _link(source / name, target / name)
    return sorted(path.name for path in target.iterdir())


def _template(prompt: PromptFormat, folder: Path) -> str | None:
    """The catalog's chat template, which also writes what the tokenizer would put before the text, such as BOS.

    For servers tokenise what a template writes without the tokenizer's own special tokens. None where the template is
    in the tokenizer's files. ValueError where no text makes the same tokens.
    """
    if prompt.template is None or prompt.template_source == "tokenizer":
        return None
    if not prompt.add_special_tokens:
        return prompt.template
    # The original's config.json names a model type that is not its own: it must not choose the tokenizer.
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig(), trust_remote_code=False)
    wanted, plain = tokenizer(SAMPLE).input_ids, tokenizer(SAMPLE, add_special_tokens=False).input_ids
    start = "".join(tokenizer.convert_ids_to_tokens(wanted[: len(wanted) - len(plain)]))
    if tokenizer(start + SAMPLE, add_special_tokens=False).input_ids != wanted:
        raise ValueError("no chat template can write the special tokens that its tokenizer adds")
    return f"{{{{- {json.dumps(start, ensure_ascii=False)} }}}}{prompt.template}" if start else prompt.template


def _folder_of(spec: ModelSpec) -> Path:
    if spec.weights.path is not None:
        return spec.weights.path
    try:
        return Path(snapshot_download(str(spec.weights.hub), revision=spec.weights.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise DownloadError(
            f"{spec.name} is not in the Hub's cache: fetch it with `hf download {spec.weights.hub} --revision "
            f"{spec.weights.revision}`, or say with --from which folder has its files."
        ) from error


def _config(folder: Path) -> KrutrimConfig:
    config: KrutrimConfig = KrutrimConfig.from_pretrained(folder)
    config.architectures = [KrutrimForCausalLM.__name__]
    return config


def _weight_files(folder: Path) -> list[str]:
    """Names of the weight files, all of which lie there. FileNotFoundError names one that does not."""
    names = [WHOLE]
    if not (folder / WHOLE).exists() and (folder / INDEX).exists():
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is not there")
    return names


def _link(path: Path, target: Path) -> None:
    """A second name for the same file rather than a symbolic link, which would lead nowhere in a container."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)


@contextmanager
def _sentences(spec: ModelSpec, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers, tokenizers and json raise whatever they please here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(f"{spec.name} cannot be exported from {folder}: {reason}.") from error

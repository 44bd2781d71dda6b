"""Files of a model: where they are, fetching them, and what it means when they cannot be read.

Called by the loader, by the tokenizers and, for a model's state in the menus, by the pool. Never fetches or runs code:
only weights in safetensors and data files are asked for. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError

from model_registry.spec import ModelSpec
from playground.engines.checkpoints.download import download, snapshot
from playground.errors import CheckpointError, PlaygroundError

TOKENIZER_FILES = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja"]
MODEL_FILES = [*TOKENIZER_FILES, "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]

DAMAGED = "Files are missing or damaged: delete the folder and download it again."
FOREIGN = "This is not the kind of checkpoint that the catalog entry describes: correct the one or the other."


def is_local(spec: ModelSpec) -> bool:
    """Whether all files of the model are on this machine; asks no network."""
    if spec.weights.path is not None:
        return spec.weights.path.is_dir()
    try:
        snapshot(spec.weights, MODEL_FILES, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return False
    return True


def fetch(spec: ModelSpec, patterns: list[str], report: Callable[[int, int], None] | None = None) -> Path:
    """The folder with the model's files, downloaded where they are not there yet; an interrupted download resumes.

    Args:
        spec: the model.
        patterns: which files, as globs (TOKENIZER_FILES or MODEL_FILES).
        report: called with bytes there and bytes in all, from several threads, one at a time.

    Raises:
        CheckpointError: a local folder is missing.
        DownloadError: the Hub did not give the files, or the disk is full; the sentence says what to do.
    """
    if (path := spec.weights.path) is not None:
        if not path.is_dir():
            raise CheckpointError(f"{spec.name} should be in {path}, but there is no such folder: correct the path.")
        return path
    return download(spec, patterns, report or (lambda done, total: None))


@contextmanager
def checkpoint_errors(spec: ModelSpec, folder: Path) -> Iterator[None]:
    """The one place where errors of reading a checkpoint become ours."""
    try:
        yield
    except PlaygroundError:
        raise
    except Exception as error:  # safetensors, json, tokenizers and transformers raise whatever they please here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = DAMAGED if isinstance(error, OSError | SafetensorError | json.JSONDecodeError) else FOREIGN
        raise CheckpointError(f"{spec.name} cannot be loaded from {folder}: {reason}. {advice}") from error

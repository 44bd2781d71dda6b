"""A model's tokenizer, and the prompt encoder around it: all that the preview of a prompt needs.

Used by the app's process, which stays small by it, and by the loader. Imports no torch: transformers 5.23 reads a
tokenizer.json without it (1 s, 77 MB), while its AutoTokenizer brings the whole of torch along (5 s, 340 MB).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from model_registry.spec import ModelSpec
from playground.engines.checkpoints.checkpoint import TOKENIZER_FILES, checkpoint_errors, fetch
from playground.prompting.encoder import PromptEncoder

GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Names that a tokenizer_config.json gives to the class that does what tokenizer.json says, and nothing else."""


def load_encoder(spec: ModelSpec) -> PromptEncoder:
    """The prompt encoder alone: fetches and reads the tokenizer's files, no weights. Raises LoadError."""
    return PromptEncoder(spec, load_tokenizer(spec, fetch(spec, [*TOKENIZER_FILES, "config.json"])))


def load_tokenizer(spec: ModelSpec, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; its files decide its class. Raises CheckpointError."""
    with checkpoint_errors(spec, folder):
        if _is_generic(folder):
            return cast(PreTrainedTokenizerBase, TokenizersBackend.from_pretrained(folder))
        from transformers import AutoTokenizer
        from transformers.configuration_utils import PreTrainedConfig

        # Krutrim's config.json names a model type that is not its own: it must not choose the tokenizer.
        config = PreTrainedConfig() if spec.architecture == "krutrim" else None
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
        return cast(PreTrainedTokenizerBase, tokenizer)


def _is_generic(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    stated = json.loads(path.read_text(encoding="utf-8"))
    return stated.get("tokenizer_class") in GENERIC and "auto_map" not in stated

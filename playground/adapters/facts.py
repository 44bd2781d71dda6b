"""What is known of a base model's layers, and of an adapter that was found to fit them.

Made by `base_layers` and `inspect`; read by whoever loads or lists adapters. Knows no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playground.types import AdapterUse


@dataclass(frozen=True, slots=True)
class BaseLayers:
    """The modules of a model that an adapter may or may not change.

    linear: (out_features, in_features) of every Linear layer, by its full name.
    others: the full names of all other modules.
    head: the Linear layer that makes logits, "" where there is none; "all-linear" leaves it out.
    names: what the model is called (Hub id, catalog id, folder), the first for sentences; empty if it does not matter.
    revision: the revision of the base that is used, "" if it does not matter.
    """

    linear: Mapping[str, tuple[int, int]]
    others: frozenset[str] = frozenset()
    head: str = ""
    names: tuple[str, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an adapter may have at most. Its weights are kept in memory, so their size is memory too."""

    rank: int = 256
    alpha: float = 65_536
    weight_bytes: int = 2 << 30
    config_bytes: int = 1 << 20
    header_bytes: int = 4 << 20
    pattern_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """An adapter that may be loaded.

    r, lora_alpha: rank and numerator of the scale, for every layer that rank_pattern and alpha_pattern do not name.
    use_rslora: whether the scale is lora_alpha / sqrt(r) rather than lora_alpha / r.
    target_modules: the full names of the layers that it changes, in the model's order.
    rank_pattern, alpha_pattern: by full name, only where they differ from r and lora_alpha.
    bytes, parameters: size of the weights' file, and numbers in it.
    base_model_name, revision: the base and its revision as the adapter states them, "" where it does not.
    digest: SHA-256 of the weights' file, in hex.
    warnings: sentences for the user about what is odd but no danger.
    """

    r: int
    lora_alpha: float
    use_rslora: bool
    target_modules: tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    bytes: int
    parameters: int
    base_model_name: str
    revision: str
    digest: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides how it answers: the weights' file, and the config as it was read."""
        return hashlib.sha256(json.dumps([self.digest, self.peft_fields()], sort_keys=True).encode()).hexdigest()

    def peft_fields(self) -> dict[str, Any]:
        """Arguments for `peft.LoraConfig` that mean the same as the adapter's own file.

        Every name is literal, so that no pattern of a stranger reaches PEFT, whose matching has no time limit.
        """
        return {
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "r": self.r,
            "lora_alpha": self.lora_alpha,
            "use_rslora": self.use_rslora,
            "target_modules": list(self.target_modules),
            "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in self.rank_pattern.items()},
            "alpha_pattern": {f"^{re.escape(name)}": alpha for name, alpha in self.alpha_pattern.items()},
        }


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter that was inspected for one model, and where it lies.

    id: as its user names it: of the catalog, owner/name on the Hub, or the folder's path.
    name: for people.
    revision: the commit of its repository, or "sha256:" and the fingerprint of its two files.
    model_id: the model that it was inspected for.
    """

    id: str
    name: str
    revision: str
    model_id: str
    folder: Path
    facts: AdapterFacts

    def use(self, scale: float = 1.0) -> AdapterUse:
        """What a request says to have it."""
        return AdapterUse(id=self.id, revision=self.revision, scale=scale)


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """What a menu offers: `about` is a line on what the adapter does and where it comes from, "" if nobody says."""

    id: str
    name: str
    about: str = ""

"""adapter_config.json, field by field: what is understood is checked, what changes the base is refused.

Written against PEFT 0.21's LoraConfig; a field that it does not have is refused unless it is switched off.
Called by the inspection. Knows no layers and no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from playground.adapters.facts import Limits
from playground.adapters.files import shown
from playground.errors import AdapterError

CONFIG = "adapter_config.json"
MAX_ENTRIES = 4096
"""Of a list or table: every entry is compared with every layer."""

SWITCHED_OFF = {
    "alora_invocation_tokens": "switches the adapter on in the middle of a text",
    "arrow_config": "mixes several adapters",
    "auto_mapping": "names Python code to import",
    "corda_config": "changes the base's own weights",
    "ensure_weight_tying": "changes the embedding",
    "eva_config": "computes the adapter from data",
    "fan_in_fan_out": "is for layers that store their weights transposed, which this model has not",
    "kasa_config": "changes the base's own weights",
    "layer_replication": "repeats layers of the base",
    "loftq_config": "changes the base's own weights",
    "lora_bias": "adds biases to the layers",
    "lora_ga_config": "changes the base's own weights",
    "megatron_config": "names Python code to import",
    "modules_to_save": "replaces whole layers of the base",
    "monteclora_config": "adds noise to the answers",
    "runtime_config": "is no property of an adapter",
    "target_parameters": "changes tensors that are no Linear layers",
    "trainable_token_indices": "changes rows of the embedding",
    "use_bdlora": "splits the matrices into blocks",
    "use_dora": "rescales the base's own weights, so that no scale of the adapter gives the plain model back",
    "use_qalora": "is for GPTQ weights only",
    "velora_config": "puts other code in the place of the layers",
}
"""Fields that must be empty or false, and what they would do."""

OFF = (None, False)
EMPTY: dict[str, object] = {
    "layer_replication": [],
    "loftq_config": {},
    "modules_to_save": [],
    "runtime_config": {},
    "target_parameters": [],
}
"""What else switches a field off. For other fields PEFT takes an empty table as "on, with all defaults"."""

INITS = (True, False, "gaussian")
"""Ways to begin training that leave the base alone. pissa, olora, corda and the like change it when PEFT loads them."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The fields of adapter_config.json that say something about the adapter, checked one by one."""

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...]
    layers_to_transform: int | tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    base_model_name: str
    revision: str
    warnings: tuple[str, ...]


def check_config(raw: dict[str, Any], limits: Limits) -> AdapterConfig:
    """The checked config.

    Args:
        raw: adapter_config.json as parsed.
        limits: the largest rank and alpha.

    Raises:
        AdapterError: a field has a value that is not understood or not allowed; the sentence names it.
    """
    fields = _Fields(raw)
    warnings = _unknown(raw)
    fields.one_of("peft_type", ("LORA",), default=None)
    fields.one_of("task_type", ("CAUSAL_LM",), default=None)
    fields.one_of("bias", ("none",), default="none")
    fields.one_of("init_lora_weights", INITS, default=True)
    for name, does in SWITCHED_OFF.items():
        if not _is_off(name, raw.get(name)):
            fields.refuse(name, f"which {does}: only plain LoRA adapters can be used here")
    _check_idle(fields)
    config = AdapterConfig(
        r=fields.rank("r", raw.get("r", 8), limits),
        lora_alpha=fields.alpha("lora_alpha", raw.get("lora_alpha", 8), limits),
        use_rslora=fields.one_of("use_rslora", (True, False), default=False),
        rank_pattern=fields.table("rank_pattern", lambda key, value: fields.rank(key, value, limits)),
        alpha_pattern=fields.table("alpha_pattern", lambda key, value: fields.alpha(key, value, limits)),
        target_modules=fields.names("target_modules"),
        exclude_modules=fields.names("exclude_modules"),
        layers_to_transform=fields.indices("layers_to_transform"),
        layers_pattern=fields.patterns("layers_pattern"),
        base_model_name=fields.text("base_model_name_or_path"),
        revision=fields.text("revision"),
        warnings=warnings,
    )
    _check_targets(fields, config)
    return config


def _unknown(raw: dict[str, Any]) -> tuple[str, ...]:
    names = sorted(set(raw) - UNDERSTOOD)
    if changed := [name for name in names if not _is_off(name, raw[name])]:
        raise AdapterError(
            f"{CONFIG}: the field {shown(changed[0])} is not known here and could change the base: only plain LoRA "
            "adapters, as PEFT 0.21 writes them, can be used."
        )
    listed = ", ".join(shown(name, 40) for name in names[:5])
    return (f"{CONFIG} has fields that are not known here and switched off: {listed}.",) if names else ()


def _is_off(name: str, value: object) -> bool:
    return any(value is off for off in OFF) or (name in EMPTY and value == EMPTY[name])


def _check_idle(fields: _Fields) -> None:
    """Fields that say something about training only, or repeat a default."""
    fields.one_of("inference_mode", (True, False), default=False)
    fields.one_of("megatron_core", ("megatron.core", None), default=None)
    fields.text("peft_version")
    dropout, group = fields.raw.get("lora_dropout", 0.0), fields.raw.get("qalora_group_size", 16)
    if not _is_number(dropout) or not 0 <= dropout <= 1:
        fields.refuse("lora_dropout", "not a number from 0 to 1")
    if type(group) is not int:
        fields.refuse("qalora_group_size", "not a whole number")


def _check_targets(fields: _Fields, config: AdapterConfig) -> None:
    """What LoraConfig itself refuses, and an adapter without targets."""
    if not config.target_modules:
        fields.refuse("target_modules", "but it must name the layers that the adapter changes")
    if isinstance(config.target_modules, str):
        for name in ("layers_to_transform", "layers_pattern"):
            if fields.raw.get(name) is not None:
                fields.refuse(name, "which goes with a list of `target_modules` only, not with a pattern")
    if config.layers_pattern and config.layers_to_transform is None:
        fields.refuse("layers_pattern", "which means nothing without `layers_to_transform`")


class _Fields:
    """Reads fields of the parsed file; every refusal is a sentence that names the field and its value."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def refuse(self, name: str, why: str) -> None:
        raise AdapterError(f"{CONFIG}: `{name}` is {shown(self.raw.get(name))}, {why}.")

    def one_of(self, name: str, allowed: tuple[Any, ...], default: Any) -> Any:
        value = self.raw.get(name, default)
        if not any(value == good and type(value) is type(good) for good in allowed):
            self.refuse(name, f"but it must be {' or '.join(shown(good) for good in allowed)}")
        return value

    def rank(self, name: str, value: object, limits: Limits) -> int:
        if type(value) is not int or not 1 <= value <= limits.rank:
            where = f"`{name}`" if name in self.raw else f"the rank of {shown(name)} in `rank_pattern`"
            raise AdapterError(
                f"{CONFIG}: {where} is {shown(value)}, but a rank must be a whole number from 1 to {limits.rank}."
            )
        return value

    def alpha(self, name: str, value: object, limits: Limits) -> float:
        if not _is_number(value) or not 0 < value <= limits.alpha:  # type: ignore[operator]
            where = f"`{name}`" if name in self.raw else f"the alpha of {shown(name)} in `alpha_pattern`"
            raise AdapterError(f"{CONFIG}: {where} is {shown(value)}, but must be above 0 and at most {limits.alpha}.")
        return value  # type: ignore[return-value]

    def table(self, name: str, checked: Callable[[str, object], Any]) -> dict[str, Any]:
        value = self.raw.get(name, {})
        if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
            self.refuse(name, f"not a table of at most {MAX_ENTRIES} layers")
        return {key: checked(key, item) for key, item in value.items()}

    def names(self, name: str) -> str | tuple[str, ...]:
        value = self.raw.get(name)
        return value if isinstance(value, str) else self._texts(name, value)

    def patterns(self, name: str) -> tuple[str, ...]:
        value = self.raw.get(name)
        return ((value,) if value else ()) if isinstance(value, str) else self._texts(name, value)

    def _texts(self, name: str, value: object) -> tuple[str, ...]:
        items = [] if value is None else value
        if not isinstance(items, list) or len(items) > MAX_ENTRIES or not all(isinstance(item, str) for item in items):
            self.refuse(name, f"neither a text nor a list of at most {MAX_ENTRIES} texts")
        return tuple(cast(list[str], items))

    def indices(self, name: str) -> int | tuple[int, ...] | None:
        value = self.raw.get(name)
        if value is None or type(value) is int:
            return value
        if not isinstance(value, list) or len(value) > MAX_ENTRIES or not all(type(item) is int for item in value):
            self.refuse(name, "neither a layer's number nor a list of them")
        return tuple(cast(list[int], value))

    def text(self, name: str) -> str:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "not a text")
        return value or ""


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


UNDERSTOOD = (
    frozenset(AdapterConfig.__dataclass_fields__) - {"warnings", "base_model_name"}
    | set(SWITCHED_OFF)
    | {
        "base_model_name_or_path",
        "bias",
        "inference_mode",
        "init_lora_weights",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "task_type",
    }
)

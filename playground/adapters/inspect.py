"""Is this adapter safe, and does it fit its model? Answered from its two files before anything of it is loaded.

PEFT loads nearly everything: pickles, missing tensors, NaN, and configs that change the base's weights. Whoever loads
an adapter asks here first. Knows no torch and no engine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from playground.adapters.config import CONFIG, AdapterConfig, check_config
from playground.adapters.facts import AdapterFacts, BaseLayers, Limits
from playground.adapters.files import adapter_folder, open_inside, parse_object, pickles, shown
from playground.adapters.header import WEIGHTS, TensorEntry, read_header
from playground.adapters.patterns import PatternMatcher
from playground.adapters.targets import Target, resolve_targets
from playground.adapters.tensors import check_names_and_shapes, check_values
from playground.errors import AdapterError

DEFAULT_LIMITS = Limits()


def inspect_adapter(folder: Path, base: BaseLayers, limits: Limits = DEFAULT_LIMITS) -> AdapterFacts:
    """What an adapter is, once it is known to be safe and to fit.

    Reads adapter_config.json and adapter_model.safetensors in the folder and no other file; executes nothing.

    Args:
        folder: the adapter's folder, as PEFT writes it.
        base: the layers of the model that it shall run on.
        limits: sizes beyond which it is refused.

    Raises:
        AdapterError: it must not be loaded; the sentence names the file, the field and the layer.
    """
    real = adapter_folder(folder)
    dangerous = _pickles_beside(real)
    config, targets = inspect_config(real, base, limits)
    with open_inside(real, WEIGHTS) as file:
        size = os.fstat(file.fileno()).st_size
        entries = read_header(file, limits)
        check_names_and_shapes(entries, targets, bool(config.rank_pattern), base)
        digest = check_values(file, entries)
    warnings = (*dangerous, *config.warnings, *_other_base(config, base))
    return _facts(config, targets, entries, size, digest, warnings)


def inspect_config(
    folder: Path, base: BaseLayers, limits: Limits = DEFAULT_LIMITS
) -> tuple[AdapterConfig, tuple[Target, ...]]:
    """The part of the inspection that needs adapter_config.json only: what it says, and the layers that it means.

    Raises:
        AdapterError: as `inspect_adapter`.
    """
    with open_inside(adapter_folder(folder), CONFIG) as file:
        content = file.read(limits.config_bytes + 1)
    if len(content) > limits.config_bytes:
        raise AdapterError(f"{CONFIG} is larger than the {limits.config_bytes:,} bytes that are allowed.")
    config = check_config(parse_object(content, CONFIG), limits)
    return config, resolve_targets(config, base, PatternMatcher(limits.pattern_seconds))


def _pickles_beside(folder: Path) -> tuple[str, ...]:
    found = pickles(folder)
    if not found:
        return ()
    listed = ", ".join(shown(name, 40) for name in found[:5])
    if not os.path.lexists(folder / WEIGHTS):
        raise AdapterError(
            f"The adapter has its weights as a pickle only ({listed}), which can run code when it is read: ask its "
            f"author for {WEIGHTS}."
        )
    return (f"The folder also holds pickles, which can run code: {listed}. They are never read.",)


def _other_base(config: AdapterConfig, base: BaseLayers) -> tuple[str, ...]:
    warnings = []
    name, revision = config.base_model_name, config.revision
    known = {other.lower() for other in base.names}
    if known and not name:
        warnings.append(f"{CONFIG} does not say which model the adapter was trained on; its shapes fit.")
    if known and name and name.rstrip("/").lower() not in known:
        warnings.append(
            f"The adapter was trained on {shown(name)}, not on {base.names[0]}; its shapes fit, but its answers may "
            "make no sense."
        )
    if revision and base.revision and revision != base.revision:
        warnings.append(f"The adapter was trained on revision {shown(revision)} of its base, not on {base.revision}.")
    return tuple(warnings)


def _facts(
    config: AdapterConfig,
    targets: Sequence[Target],
    entries: Sequence[TensorEntry],
    size: int,
    digest: str,
    warnings: tuple[str, ...],
) -> AdapterFacts:
    return AdapterFacts(
        r=config.r,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        target_modules=tuple(target.name for target in targets),
        rank_pattern={target.name: target.r for target in targets if target.r != config.r},
        alpha_pattern={target.name: target.lora_alpha for target in targets if target.lora_alpha != config.lora_alpha},
        bytes=size,
        parameters=sum(math.prod(entry.shape) for entry in entries),
        base_model_name=config.base_model_name,
        revision=config.revision,
        digest=digest,
        warnings=warnings,
    )

"""Which layers a config means: the same that PEFT itself finds, for whatever config it accepts."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from playground.adapters.config import CONFIG, SWITCHED_OFF, UNDERSTOOD, check_config
from playground.adapters.facts import BaseLayers, Limits
from playground.adapters.patterns import PatternMatcher
from playground.adapters.targets import resolve_targets
from playground.errors import AdapterError

Layers = dict[str, tuple[int, float]]
LIMITS = Limits()

CASES: list[dict[str, Any]] = [
    {"target_modules": ["q_proj"]},
    {"target_modules": ["self_attn.q_proj", "down_proj"]},
    {"target_modules": ["model.layers.1.self_attn.q_proj"]},
    {"target_modules": ["0.self_attn.q_proj", "lm_head"]},
    {"target_modules": "ALL-linear"},
    {"target_modules": r"model\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|up_proj)"},
    {"target_modules": r"(?i).*Q_PROJ"},
    {"target_modules": r"q_proj|lm_head"},
    {"target_modules": ["q_proj"], "layers_to_transform": 0},
    {"target_modules": ["q_proj"], "layers_to_transform": []},
    {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [1, 7]},
    {"target_modules": ["q_proj", "model.layers.0.self_attn.v_proj"], "layers_to_transform": 1},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ""},
    {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "x|model.layers"},
    {"target_modules": "all-linear", "exclude_modules": r".*mlp.*"},
    {"target_modules": "all-linear", "exclude_modules": ["q_proj", "model.layers.0.mlp.up_proj", "none"]},
    {"target_modules": ["q_proj"], "rank_pattern": {"layers.0": 2, "proj": 3, r".*\.q_proj": 5}},
    {"target_modules": ["q_proj"], "rank_pattern": {"q_pro.": 5, "q_proj": 6}, "alpha_pattern": {"^model.*": 1}},
    {"target_modules": ["q_proj"], "alpha_pattern": {"q_proj|k_proj": 1, "model.layers.1.self_attn.q_proj": 2}},
]


def ours(base: BaseLayers, fields: dict[str, Any], seconds: float = 5.0) -> Layers:
    raw = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **fields}
    targets = resolve_targets(check_config(raw, LIMITS), base, PatternMatcher(seconds))
    return {target.name: (target.r, target.lora_alpha) for target in targets}


def pefts(model: PreTrainedModel, fields: dict[str, Any]) -> Layers:
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **fields})
    tuner = get_peft_model(deepcopy(model), config).base_model
    modules = dict(tuner.model.named_modules())
    return {n: (modules[n].r["default"], modules[n].lora_alpha["default"]) for n in tuner.targeted_module_names}


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("fields", CASES, ids=str)
def test_peft_finds_the_same_layers(llama: PreTrainedModel, llama_base: BaseLayers, fields: dict[str, Any]) -> None:
    try:
        theirs = pefts(llama, fields)
    except ValueError:
        theirs = None
    if theirs is None:
        with pytest.raises(AdapterError):
            ours(llama_base, fields)
    else:
        assert ours(llama_base, fields) == theirs


def test_most_cases_are_accepted_by_peft(llama: PreTrainedModel) -> None:
    """So that the comparison above compares something."""
    assert sum(bool(pefts(llama, fields)) for fields in CASES[:7]) == 7


PIECES = st.sampled_from(
    ["q_proj", "v_proj", "lm_head", "self_attn", "mlp", "0", "1", "layers", "model", "proj", "up_proj", "embed_tokens"]
)
NAMES = st.lists(PIECES, min_size=1, max_size=3).map(".".join)
ATOMS = st.one_of(PIECES, st.sampled_from([".*", r"\.", "[qkv]", ".", r"\d", "(?:q|k|v)", "_proj", "layers.[01]"]))
PATTERNS = st.lists(ATOMS, min_size=1, max_size=4).map("".join)
TARGETS = st.one_of(st.lists(NAMES, min_size=1, max_size=3), PATTERNS, st.just("all-linear"))
RANKS = st.dictionaries(st.one_of(NAMES, PATTERNS), st.integers(1, 6), max_size=3)
FIELDS = st.fixed_dictionaries(
    {"target_modules": TARGETS},
    optional={
        "exclude_modules": st.one_of(st.lists(NAMES, max_size=2), PATTERNS),
        "layers_to_transform": st.one_of(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2)),
        "layers_pattern": st.one_of(st.sampled_from(["layers", "h", ""]), st.lists(PIECES, max_size=2)),
        "rank_pattern": RANKS,
        "alpha_pattern": RANKS,
    },
)


@settings(max_examples=150)
@given(fields=FIELDS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_whatever_is_resolved_is_resolved_as_peft_does(
    llama: PreTrainedModel, llama_base: BaseLayers, fields: dict[str, Any]
) -> None:
    try:
        layers = ours(llama_base, fields)
    except AdapterError:
        return
    assert layers == pefts(llama, fields)


def test_every_field_of_pefts_config_is_decided_on() -> None:
    fields = set(LoraConfig.__dataclass_fields__)
    assert fields == UNDERSTOOD
    written = set(LoraConfig(target_modules=["q_proj"]).to_dict())
    assert written <= UNDERSTOOD


def test_what_peft_writes_by_default_is_switched_off(tmp_path: Path) -> None:
    LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]).save_pretrained(tmp_path)
    assert check_config(json.loads((tmp_path / CONFIG).read_text()), LIMITS).warnings == ()


GOOD = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}


@pytest.mark.parametrize("name", sorted(SWITCHED_OFF))
@pytest.mark.parametrize("value", [True, {"a": 1}, [1], "yes", 1])
def test_a_field_that_changes_more_is_refused_when_on(name: str, value: object) -> None:
    with pytest.raises(AdapterError, match=f"^adapter_config.json: `{name}` is .*, which {SWITCHED_OFF[name]}"):
        check_config(GOOD | {name: value}, LIMITS)
    assert check_config(GOOD | {name: None}, LIMITS).r == 8
    assert check_config(GOOD | {name: False}, LIMITS).r == 8


@pytest.mark.parametrize("name", ["kasa_config", "velora_config", "monteclora_config", "arrow_config", "use_bdlora"])
def test_an_empty_table_switches_a_variant_on_in_peft_and_is_refused(name: str) -> None:
    assert getattr(LoraConfig(**{name: {}}), name) is not None
    with pytest.raises(AdapterError, match=f"`{name}` is {{}}"):
        check_config(GOOD | {name: {}}, LIMITS)


WRONG: list[tuple[str, object]] = [
    ("peft_type", "LOHA"), ("peft_type", None), ("task_type", "SEQ_CLS"), ("task_type", None), ("bias", "all"),
    ("bias", None), ("init_lora_weights", "mica"), ("init_lora_weights", 1), ("init_lora_weights", None),
    ("init_lora_weights", ["pissa"]), ("r", 0), ("r", -1), ("r", 4.0), ("r", True), ("r", "8"), ("r", None),
    ("r", 10**100), ("lora_alpha", 0), ("lora_alpha", -8), ("lora_alpha", "8"), ("lora_alpha", True),
    ("lora_alpha", float("inf")), ("lora_alpha", 10**400), ("use_rslora", 1), ("use_rslora", "no"),
    ("rank_pattern", None), ("rank_pattern", []), ("rank_pattern", {"q_proj": 0}), ("rank_pattern", {"q_proj": 999}),
    ("rank_pattern", {"q_proj": [1]}), ("alpha_pattern", {"q_proj": None}), ("alpha_pattern", "x"),
    ("alpha_pattern", {str(i): 1 for i in range(5000)}), ("target_modules", None), ("target_modules", []),
    ("target_modules", ""), ("target_modules", 5), ("target_modules", {"q_proj": 1}), ("target_modules", [["q_proj"]]),
    ("target_modules", ["q_proj"] * 5000), ("exclude_modules", 1), ("exclude_modules", [None]),
    ("layers_to_transform", "1"), ("layers_to_transform", 1.0), ("layers_to_transform", True),
    ("layers_to_transform", [True]), ("layers_pattern", "layers"), ("layers_pattern", {}), ("lora_dropout", 2),
    ("lora_dropout", "0"), ("lora_dropout", -0.1), ("inference_mode", "yes"), ("megatron_core", "os"),
    ("peft_version", 1), ("qalora_group_size", "x"), ("base_model_name_or_path", 1), ("revision", ["main"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{n}={str(v)[:30]}" for n, v in WRONG])
def test_a_wrong_value_is_refused_by_the_fields_name(name: str, value: object) -> None:
    with pytest.raises(AdapterError, match=f"^adapter_config.json: .*`{name}`"):
        check_config(GOOD | {name: value}, LIMITS)


@pytest.mark.parametrize("name", ["layers_to_transform", "layers_pattern"])
def test_a_pattern_goes_without_layer_numbers(name: str) -> None:
    fields = GOOD | {"target_modules": ".*q_proj", name: []}
    with pytest.raises(ValueError, match=name):
        LoraConfig(**fields)
    with pytest.raises(AdapterError, match=f"`{name}` is .*, which goes with a list of `target_modules` only"):
        check_config(fields, LIMITS)


@pytest.mark.parametrize("field", ["exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"])
def test_every_pattern_is_matched_within_the_limit_of_time(llama_base: BaseLayers, field: str) -> None:
    slow = r"(?:\w|\.|[a-z])*[A-Z]"
    value: object = {slow: 2} if field.endswith("_pattern") and field != "layers_pattern" else slow
    fields = {"target_modules": ["q_proj"], "layers_to_transform": [0], field: value}
    with pytest.raises(AdapterError, match=f"a pattern in `{field}` takes too long to match"):
        ours(llama_base, fields, seconds=0.2)


@pytest.mark.parametrize("pattern", ["(?<a>x", "a{1000}", "a{2}" * 11, "(q){e<=3}", "(" * 500, "x" * 1001, "(?R)"])
def test_patterns_that_are_none_or_too_large_are_refused(llama_base: BaseLayers, pattern: str) -> None:
    with pytest.raises(AdapterError, match=r"`target_modules` is(?: no valid regular| too long or repeats too much)"):
        ours(llama_base, {"target_modules": pattern})

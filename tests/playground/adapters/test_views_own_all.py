"""What a copy of a tree holds: all that the tree holds, and nothing that both could change but the weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from engine_room import tiny_gpt_neox, tiny_krutrim, tiny_llama
from peft.tuners.lora import LoraLayer
from shared_weights import logits, portrait, reach
from tiny_adapters import write_adapter
from torch import nn
from transformers import PreTrainedModel

from playground.adapters.base_layers import layers_of
from playground.adapters.inspect import inspect_adapter
from playground.adapters.sharing import shared_copy
from playground.adapters.views import rescaled, view_of

Make = Callable[[], PreTrainedModel]


def adapted_llama(folder: Path) -> PreTrainedModel:
    base = tiny_llama()
    write_adapter(folder, base, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 2})
    return view_of(base, folder, inspect_adapter(folder, layers_of(base)))


@pytest.fixture(params=["krutrim", "llama", "gpt-neox", "hooked", "adapted"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    makes: dict[str, Make] = {
        "krutrim": tiny_krutrim,
        "llama": tiny_llama,
        "gpt-neox": tiny_gpt_neox,
        "hooked": lambda: cpu_offload(tiny_llama(), torch.device("cpu")),
        "adapted": lambda: adapted_llama(tmp_path / "adapter"),
    }
    return makes[request.param]()


def outline(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Every attribute of every module: its type, and its value where that is plain, or how much it holds."""
    return {
        (path, name): (type(value), value if isinstance(value, str | int | float | None) else held(value))
        for path, module in model.named_modules(remove_duplicate=False)
        for name, value in vars(module).items()
        if name not in ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa")
    }


def held(value: object) -> object:
    if isinstance(value, set):
        return sorted(value)
    return list(value) if isinstance(value, dict) else len(value) if isinstance(value, list | tuple) else None


def test_a_copy_has_every_attribute_of_every_module(tree: PreTrainedModel) -> None:
    assert outline(shared_copy(tree)) == outline(tree) == outline(deepcopy(tree))


def test_no_container_of_a_copy_is_in_reach_of_the_tree(tree: PreTrainedModel) -> None:
    copied = shared_copy(tree)
    logits(copied)
    mutable = (dict, list, set, nn.Module, nn.Parameter)
    theirs = {id(thing) for module in tree.modules() for thing in (module, *vars(module).values())}
    assert not [thing for thing in reach(copied) if isinstance(thing, mutable) and id(thing) in theirs]


def test_whoever_changes_all_of_a_copy_changes_nothing_else(tree: PreTrainedModel) -> None:
    copied, said, looks, outlined = shared_copy(tree), logits(tree), portrait(tree), outline(tree)
    # Hooks that have run have made new parameters, so they are looked at after the model was.
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, dict):
                value["added"] = None
            elif isinstance(value, set):
                value.add("added")
            elif isinstance(value, list):
                value.append("added")
            elif isinstance(value, str | int | float):
                setattr(module, name, "changed")
    copied.config.update({"added": 1})
    assert portrait(tree) == looks
    assert outline(tree) == outlined
    assert torch.equal(logits(tree), said)


class Counted(nn.Module):
    """That says itself how it is copied."""

    def __init__(self, copies: int = 0) -> None:
        super().__init__()
        self.copies = copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        return Counted(self.copies + 1)


class Forgetful(nn.Module):
    """That says itself what of it is copied."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "secret"}


def test_modules_that_say_how_they_are_copied_are_asked() -> None:
    base = tiny_llama()
    base.counted, base.forgetful = Counted(), Forgetful()
    base.forgetful.secret = 1
    copied = shared_copy(base)
    assert vars(copied.get_submodule("counted"))["copies"] == 1
    assert not hasattr(copied.forgetful, "secret")


def test_what_modules_of_a_tree_have_in_common_their_copies_have_in_common() -> None:
    base = tiny_llama()
    common: list[int] = []
    for layer in base.model.layers:
        layer.common = common
    first, *others = [layer.common for layer in shared_copy(base).model.layers]
    assert first is not common
    assert others
    assert all(other is first for other in others)


def test_layers_with_an_adapter_share_only_what_holds_no_weights(tmp_path: Path) -> None:
    view = adapted_llama(tmp_path / "adapter")
    louder = rescaled(view, 2)
    layers = [module for module in view.modules() if isinstance(module, LoraLayer)]
    assert len({id(layer.lora_A["default"]) for layer in layers}) == len(layers)
    assert len({id(layer.scaling) for layer in layers}) == len(layers)
    assert not {id(module) for module in view.modules()} & {id(module) for module in louder.modules()}
    assert {layer.scaling["default"] for layer in layers} == {2.0, 4.0}

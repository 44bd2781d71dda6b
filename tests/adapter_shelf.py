"""A library where every name is an adapter for every model, for tests of what comes after the inspection."""

from __future__ import annotations

from pathlib import Path

from model_registry.spec import ModelSpec
from playground.adapters.facts import AdapterChoice, AdapterFacts, CheckedAdapter
from playground.errors import AdapterError


class Shelf:
    """Adapters for every model, by any name, but for those that are refused. `checks` are the questions."""

    def __init__(self, parameters: int = 1000) -> None:
        self.refused: dict[str, Exception] = {}
        self.checks: list[tuple[str, str, str]] = []
        self._parameters = parameters

    def choices(self, spec: ModelSpec) -> tuple[AdapterChoice, ...]:
        return (AdapterChoice("formal", "Formal", f"of {spec.id}"),)

    def check(self, spec: ModelSpec, text: str, revision: str = "") -> CheckedAdapter:
        self.checks.append((spec.id, text, revision))
        if text in self.refused:
            raise self.refused[text]
        if revision not in ("", "r1"):
            raise AdapterError(f"{text} is not there any more as it was.")
        return checked(text, spec.id, self._parameters)

    def remembered(self, spec: ModelSpec, adapter_id: str, revision: str) -> CheckedAdapter | None:
        return None


def checked(
    adapter_id: str, model_id: str = "a", parameters: int = 1000, targets: tuple[str, ...] = ("layers.0.q",)
) -> CheckedAdapter:
    facts = AdapterFacts(8, 8.0, False, targets, {}, {}, 4 * parameters, parameters, "", "", "0" * 64)
    return CheckedAdapter(adapter_id, adapter_id, "r1", model_id, Path(), facts)

"""What a panel knows of its adapter, and what its menu offers."""

from __future__ import annotations

from fakes import checked_adapter

from playground.adapters.facts import AdapterChoice
from playground.ui.adapter_state import ELSEWHERE, NO_ADAPTER, Choosing, PanelAdapter, menu, typed_for

FORMAL = AdapterChoice("formal", "Formal", "Says sir.")
END = ("From the Hub or a folder …", ELSEWHERE)


def typed(text: str, label: str, model_id: str = "a", panel: PanelAdapter = PanelAdapter()) -> PanelAdapter:  # noqa: B008
    return panel.accept(text, checked_adapter(model_id, text), label)


def test_a_request_names_the_adapter_its_revision_and_scale() -> None:
    checked = checked_adapter("a", "formal")
    use = PanelAdapter().accept("formal", checked).use("a", 0.5)
    assert use is not None
    assert (use.id, use.revision, use.scale) == ("formal", checked.revision, 0.5)


def test_what_was_checked_for_another_model_is_never_asked_for() -> None:
    panel = PanelAdapter().accept("formal", checked_adapter("a", "formal"))
    assert panel.use("b", 1.0) is None
    assert panel.plain().use("a", 1.0) is None
    assert PanelAdapter().use("a", 1.0) is None


def test_the_verbs_leave_the_old_value_alone() -> None:
    panel = PanelAdapter()
    accepted = typed("o/n", "o/n@1", panel=panel)
    assert panel == PanelAdapter()
    assert accepted.plain().typed == accepted.typed
    assert accepted.value == "o/n"


def test_the_menu_offers_none_then_the_catalogs_then_what_was_typed_then_the_field() -> None:
    panel = typed("o/n", "o/n@1")
    entries = menu([FORMAL], typed_for("a", [panel]))
    assert entries == [("No adapter", NO_ADAPTER), ("Formal", "formal"), ("o/n@1", "o/n"), END]
    assert menu([], ()) == [("No adapter", NO_ADAPTER), END]


def test_what_was_typed_is_offered_in_every_panel_of_its_model_alone() -> None:
    panels = [typed("o/n", "o/n@1"), PanelAdapter(), typed("o/m", "o/m@1", "b"), typed("o/n", "o/n@1")]
    assert [each.text for each in typed_for("a", panels)] == ["o/n"]
    assert [each.text for each in typed_for("b", panels)] == ["o/m"]


def test_the_same_adapter_typed_again_or_in_another_way_is_offered_once() -> None:
    panel = typed("o/n", "o/n@2", panel=typed("o/n", "o/n@1"))
    assert [(each.text, each.label) for each in panel.typed] == [("o/n", "o/n@2")]
    panel = typed("https://huggingface.co/o/n", "o/n@2", panel=panel)
    assert [each.text for each in panel.typed] == ["https://huggingface.co/o/n"]
    panel = typed("o/n", "o/n@2", "b", panel)
    assert len(panel.typed) == 2


def test_a_menu_has_no_value_twice() -> None:
    entries = menu([FORMAL, AdapterChoice("o/n", "Listed")], typed_for("a", [typed("o/n", "o/n@1")]))
    assert [value for _, value in entries] == [NO_ADAPTER, "formal", "o/n", ELSEWHERE]
    assert entries[2][0] == "Listed"


def test_of_two_choices_the_later_one_counts() -> None:
    choosing = Choosing()
    first, second = choosing.begin(), choosing.begin()
    assert not choosing.is_last(first)
    assert choosing.is_last(second)

"""The devices view's arithmetic and words: bars that add up, colours that stay, names that open no tag."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from fakes import spec
from hypothesis import given
from hypothesis import strategies as st
from markup import read

from model_registry.registry import Registry
from playground.engines.pooling.model_status import ModelState, ModelStatus
from playground.types import AdapterUse, DeviceReport, DeviceUse, EngineLabel, LoadProgress
from playground.ui import device_view

GB = 10**9
SIZES = st.integers(0, 10**12)
HOSTILE = "<img src=x onerror=alert(1)>\"'"


def use(weights: int, kv: int, used: int, total: int = 24 * GB, free: int = 0) -> DeviceUse:
    return DeviceUse("cuda:0", total, free, weights, kv, used)


def view(*statuses: ModelStatus, reports: tuple[DeviceReport, ...] = (), models: tuple[str, ...] = ("a", "b")) -> str:
    return device_view.devices(Registry([spec(model) for model in models]), reports, statuses)


def shares(markup: str) -> list[float]:
    return [float(share) for share in re.findall(r"flex-grow:([\d.]+)", markup)]


@given(total=SIZES, free=SIZES, engines=st.lists(st.builds(use, SIZES, SIZES, SIZES), max_size=4))
def test_a_bar_adds_up_and_nothing_in_it_is_negative(total: int, free: int, engines: list[DeviceUse]) -> None:
    report = DeviceReport(
        "cuda:0", total, free, tuple((EngineLabel(f"m{i}"), engine) for i, engine in enumerate(engines))
    )
    parts = device_view.segments(report)
    ours = sum(engine.weight_bytes + engine.kv_bytes for engine in engines)
    assert all(part.size_bytes >= 0 for part in parts)
    assert sum(part.size_bytes for part in parts) == max(total, ours)
    assert [part.kind for part in parts] == ["weights", "kv-used", "kv-free"] * len(engines) + ["other", "free"]


def test_what_is_neither_ours_nor_free_is_everything_else() -> None:
    report = DeviceReport("cuda:0", 24 * GB, 4 * GB, ((EngineLabel("a"), use(14 * GB, 2 * GB, GB // 2)),))
    sizes = {part.kind: part.size_bytes for part in device_view.segments(report)}
    assert sizes == {"weights": 14 * GB, "kv-used": GB // 2, "kv-free": 3 * GB // 2, "other": 4 * GB, "free": 4 * GB}
    assert shares(view(reports=(report,))) == [58.3333, 2.0833, 6.25, 16.6667, 16.6667]


def test_memory_that_is_reserved_but_not_taken_yet_is_not_shown_as_free() -> None:
    report = DeviceReport("cpu", 16 * GB, 15 * GB, ((EngineLabel("a"), use(2 * GB, 2 * GB, 0)),))
    sizes = [part.size_bytes for part in device_view.segments(report)]
    assert sizes == [2 * GB, 0, 2 * GB, 0, 12 * GB]


def test_a_piece_of_nothing_keeps_its_place_but_takes_no_width() -> None:
    markup = view(reports=(DeviceReport("cuda:0", 24 * GB, 20 * GB, ((EngineLabel("a"), use(GB, GB, 0)),)),))
    assert 'class="kv-used none"' in markup
    assert 'class="kv-free"' in markup
    assert len(shares(markup)) == 5


def test_the_bar_is_told_in_words() -> None:
    markup = view(
        reports=(DeviceReport("cuda:0", 24 * GB, 4 * GB, ((EngineLabel("a"), use(14_700_000_000, 2 * GB, GB // 2)),)),)
    )
    label = re.search(r'role="img" aria-label="([^"]*)"', markup)
    assert label
    assert label[1] == (
        "cuda:0, 24.0 GB: A weights 14.7 GB; A KV cache in use 500 MB; A reserved 1.5 GB; "
        "Everything else 3.3 GB; Free 4.0 GB"
    )


def test_a_model_has_one_colour_on_all_devices_and_in_its_row() -> None:
    uses = ((EngineLabel("a"), use(GB, GB, 0)), (EngineLabel("b"), use(GB, GB, 0)))
    reports = (DeviceReport("cuda:0", 24 * GB, GB, uses), DeviceReport("cuda:1", 24 * GB, GB, uses[1:]))
    markup = view(ModelStatus("b", "ready", "ready"), reports=reports)
    (row,) = re.findall(r'data-model="b" style="--hue:(\d+)"', markup)
    owners = re.findall(r'class="weights" style="--hue:(\d+)', markup)
    assert owners == [owners[0], row, row]
    assert owners[0] != row


def test_no_two_models_of_a_large_catalog_share_a_colour() -> None:
    hues = [*device_view.hues(Registry([spec(f"m{number}") for number in range(24)])).values()]
    assert len({round(hue) for hue in hues}) == 24
    apart = [min(abs(one - other), 360 - abs(one - other)) for one, other in pairwise(hues)]
    assert min(apart) > 90


def test_a_loading_model_tells_its_bytes_and_can_be_cancelled() -> None:
    progress = LoadProgress("weights", 3_200_000_000, 14_700_000_000)
    markup = view(ModelStatus("a", "loading", "loading", progress, "A: whole on cuda:0."))
    assert read(markup).text.endswith("whole on cuda:0.")
    assert "A: " not in read(markup).text
    assert "Loading weights · 3.2 of 14.7 GB" in read(markup).text
    assert (
        'role="progressbar" aria-label="Loading A" aria-valuemin="0" aria-valuemax="100" aria-valuenow="22"' in markup
    )
    assert 'data-action="cancel" data-model="a" aria-label="Cancel A"' in markup
    assert 'data-action="unload"' not in markup


@pytest.mark.parametrize("progress", [None, LoadProgress("start")])
def test_progress_without_numbers_claims_none(progress: LoadProgress | None) -> None:
    markup = view(ModelStatus("a", "loading", "loading", progress))
    assert 'class="thin progressbar unknown"' in markup
    assert "aria-valuenow" not in markup


def test_a_ready_model_tells_its_cache_over_all_devices_and_can_be_unloaded() -> None:
    engines = ((EngineLabel("a"), use(GB, 2 * GB, GB // 2)),)
    reports = tuple(DeviceReport(f"cuda:{number}", 24 * GB, GB, engines) for number in range(2))
    markup = view(ModelStatus("a", "ready", "ready", None, "A: spread."), reports=reports)
    assert "Ready · KV cache 1.0 of 4.0 GB in use" in markup
    assert 'role="meter" aria-label="KV cache of A" aria-valuemin="0" aria-valuemax="100" aria-valuenow="25"' in markup
    assert 'data-action="unload" data-model="a" aria-label="Unload A"' in markup


def test_a_failed_model_says_why_and_has_no_button() -> None:
    markup = view(ModelStatus("a", "failed", "The Hub is out of reach."))
    assert "The Hub is out of reach." in read(markup).text
    assert "button" not in read(markup).tags


FORMAL = AdapterUse(id="formal", revision="sha256:fa5891c8" + "0" * 56)
HALF = AdapterUse(id="/home/me/formal", revision="sha256:fa5891c8" + "0" * 56, scale=0.5)


def test_an_adapters_engine_stands_behind_its_base_in_the_same_hue_and_another_pattern() -> None:
    engines = (
        (EngineLabel("a"), use(2 * GB, GB, 0)),
        (EngineLabel("b"), use(2 * GB, GB, 0)),
        (EngineLabel("a", FORMAL), use(GB // 10, GB, GB // 2)),
        (EngineLabel("a", HALF), use(GB // 10, GB, 0)),
    )
    markup = view(reports=(DeviceReport("cuda:0", 24 * GB, 4 * GB, engines),))
    bar = re.findall(r'<span class="(weights[^"]*)" style="--hue:(\d+)', markup)
    assert [look for look, _ in bar] == ["weights", "weights view", "weights view", "weights"]
    assert bar[0][1] == bar[1][1] == bar[2][1] != bar[3][1]
    text = read(markup).text
    assert "A + formal@fa5891c8 weights 100 MBKV cache in use 500 MB" in text
    assert "A + formal@fa5891c8 × 0.5 weights 100 MB" in text
    assert re.search(r'aria-label="[^"]*A \+ formal@fa5891c8 weights 100 MB; A \+ formal@fa5891c8 KV cache', markup)


def test_a_models_row_counts_the_cache_of_its_adapters_too() -> None:
    engines = ((EngineLabel("a"), use(GB, GB, 0)), (EngineLabel("a", FORMAL), use(0, GB, GB)))
    markup = view(ModelStatus("a", "ready", "ready"), reports=(DeviceReport("cuda:0", 24 * GB, GB, engines),))
    assert "Ready · KV cache 1.0 of 2.0 GB in use" in markup
    assert markup.count("data-action=") == 1


def test_empty_views_say_so() -> None:
    text = read(view()).text
    assert "No device has been reported yet." in text
    assert "No model is loaded: the first prompt loads its panel's model." in text
    idle = view(reports=(DeviceReport("cpu", 16 * GB, 12 * GB),))
    assert "CPU memory" in idle
    assert shares(idle) == [25, 75]


@pytest.mark.parametrize("state", ["ready", "loading", "failed"])
def test_no_name_and_no_sentence_opens_a_tag(state: ModelState) -> None:
    model = spec("a").model_copy(update={"name": HOSTILE})
    status = ModelStatus("a", state, HOSTILE, None, HOSTILE)
    adapter = AdapterUse(id=HOSTILE, revision=HOSTILE)
    owners = (EngineLabel("a"), EngineLabel(HOSTILE), EngineLabel(HOSTILE, adapter))
    reports = (DeviceReport(HOSTILE, 24 * GB, GB, tuple((owner, use(GB, GB, 0)) for owner in owners)),)
    reader = read(device_view.devices(Registry([model]), reports, [status]))
    allowed = {"div", "section", "h3", "span", "ul", "li", "i", "b", "p", "button"}
    assert set(reader.tags) <= allowed
    assert reader.text.count(HOSTILE) >= 4

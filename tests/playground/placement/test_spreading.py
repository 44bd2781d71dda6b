"""Cutting models into runs of layers, in small numbers that can be added up by hand."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from playground.placement.footprint import Footprint
from playground.placement.spreading import Part, Run, cut_evenly, devices_needed, fits


def model(layers: int = 4, block: int = 10, first: int = 0, last: int = 0, kv: int = 0, process: int = 0) -> Part:
    return Part(Footprint("float16", layers, block, first, last, kv, process, 0, 0), contexts=1)


parts = st.lists(
    st.builds(
        model,
        st.integers(1, 9),
        st.integers(1, 9),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=3,
)
rooms = st.lists(st.integers(-5, 60), min_size=1, max_size=5).map(
    lambda sizes: {f"cuda:{index}": size for index, size in enumerate(sizes)}
)


def test_a_model_leaves_as_much_room_on_both_devices() -> None:
    mib = 1 << 20
    rooms = {"a": 300 * mib, "b": 300 * mib}
    assert devices_needed([model(block=100 * mib)], rooms) == ("a", "b")
    assert cut_evenly([model(block=100 * mib)], rooms) == [(Run("a", 0, 1), Run("b", 2, 3))]


def test_what_fits_on_one_device_takes_one_the_roomiest() -> None:
    assert devices_needed([model()], {"a": 30, "b": 40, "c": 50}) == ("c",)


def test_the_last_block_waits_for_room_for_the_head() -> None:
    # Four blocks fit on the first, but not the head with them; the head never stands without a block.
    assert devices_needed([model(last=7)], {"a": 40, "b": 17}) == ("a", "b")
    assert cut_evenly([model(last=7)], {"a": 40, "b": 17}) == [(Run("a", 0, 2), Run("b", 3, 3))]
    assert devices_needed([model(last=7)], {"a": 40, "b": 16}) is None
    assert devices_needed([model(last=7)], {"a": 47, "b": 16}) == ("a",)


def test_the_embeddings_stand_with_the_first_block() -> None:
    assert devices_needed([model(first=7)], {"a": 37, "b": 10}) == ("a", "b")
    assert devices_needed([model(first=7)], {"a": 36, "b": 10}) is None


def test_every_device_pays_for_a_process_and_for_the_cache_of_its_layers() -> None:
    assert devices_needed([model(kv=1, process=5)], {"a": 27, "b": 27}) == ("a", "b")
    assert devices_needed([model(kv=1, process=5)], {"a": 27, "b": 26}) is None


def test_the_next_model_goes_on_where_the_last_one_ended() -> None:
    two = [model(layers=3), model(layers=3)]
    assert cut_evenly(two, {"a": 20, "b": 20, "c": 20}) == [
        (Run("a", 0, 1), Run("b", 2, 2)),
        (Run("b", 0, 0), Run("c", 1, 2)),
    ]


@given(parts=parts, rooms=rooms)
def test_no_cut_takes_more_than_there_is(parts: list[Part], rooms: dict[str, int]) -> None:
    over = devices_needed(parts, rooms)
    assert (over is not None) == fits(parts, rooms)
    if over is None:
        return
    taken: Counter[str] = Counter()
    for part, runs in zip(parts, cut_evenly(parts, {name: rooms[name] for name in over}), strict=True):
        layers = [layer for run in runs for layer in range(run.first, run.last + 1)]
        assert layers == list(range(part.footprint.layers))
        for run in runs:
            taken[run.device] += part.footprint.share(run.device, run.first, run.last, part.contexts).total_bytes
    assert all(taken[name] <= rooms[name] for name in taken)


@given(parts=parts, rooms=rooms, more=st.lists(st.integers(0, 9), min_size=5, max_size=5))
def test_more_room_never_takes_a_cut_away(parts: list[Part], rooms: dict[str, int], more: list[int]) -> None:
    before = devices_needed(parts, rooms)
    after = devices_needed(
        parts, {name: size + extra for (name, size), extra in zip(rooms.items(), more, strict=False)}
    )
    assert before is None or (after is not None and len(after) <= len(before))

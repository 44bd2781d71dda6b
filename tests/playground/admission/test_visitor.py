"""What counts as one address."""

from __future__ import annotations

import pytest

from playground.admission.visitor import Visitor


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
        ("2001:db8:1:2::3%eth0", "2001:db8:1:2::3%eth0", True),
        ("testclient", "testclient", True),
        ("", "192.0.2.7", False),
    ],
)
def test_an_address_is_a_network_where_its_owner_has_all_of_it(one: str, other: str, same: bool) -> None:
    assert (Visitor("a", one).origin == Visitor("b", other).origin) is same


def test_people_behind_one_router_who_log_in_do_not_count_as_one() -> None:
    assert Visitor("a", "192.0.2.7", "asha").origin != Visitor("a", "192.0.2.7", "minsu").origin


def test_what_is_no_address_takes_no_more_room_than_one() -> None:
    assert len(Visitor("a", "x" * 100_000).origin[0]) <= 64

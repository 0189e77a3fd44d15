"""How much of the log is queued in one step, and where the next one begins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.store.lanes import Checkpoint, Entry
from bridge.webhooks.enqueuer import portion
from tests.lanes import entry

START = Checkpoint("b", "0-0", "", 1, "9-0", "0-0", False)


def test_what_fits_is_taken_whole_and_foreign_entries_behind_it_are_passed() -> None:
    shares, to_id, partial = portion(START, [(entry("1-0"), ["e", "f"]), (entry("2-0"), [])], "3-0", 5)
    assert [(each.entry.event.id, each.endpoints) for each in shares] == [("1-0", ["e", "f"])]
    assert (to_id, partial) == ("3-0", "")


def test_one_event_for_many_endpoints_goes_in_parts() -> None:
    matched = [(entry("1-0"), ["a", "b", "c"])]
    shares, to_id, partial = portion(START, matched, "1-0", 2)
    assert (shares[0].endpoints, to_id, partial) == (["a", "b"], "0-0", "b")
    rest = portion(Checkpoint("b", "0-0", "b", 1, "9-0", "0-0", False), matched, "1-0", 2)
    assert (rest[0][0].endpoints, rest[1:]) == (["c"], ("1-0", ""))


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=8), st.integers(1, 5))
def test_step_by_step_each_endpoint_gets_each_event_once_and_in_order(wanted: list[set[str]], most: int) -> None:
    matched: list[tuple[Entry, list[str]]] = [
        (entry(f"{number}-0"), sorted(names)) for number, names in enumerate(wanted, 1)
    ]
    given, at, partial = [], 0, ""
    while matched[at:]:
        checkpoint = Checkpoint("b", f"{at}-0", partial, 1, "9-0", "0-0", False)
        shares, to_id, partial = portion(checkpoint, matched[at:], matched[-1][0].event.id, most)
        assert sum(len(share.endpoints) for share in shares) <= most
        given += [(share.entry.event.id, name) for share in shares for name in share.endpoints]
        at = int(to_id.partition("-")[0])
    assert given == [(each.event.id, name) for each, names in matched for name in names]

from __future__ import annotations

from bridge.store.snapshots import Snapshot
from bridge.upstream.stored_snapshots import EACH_AT_MOST, ONE_EVERY, StoredSnapshots
from bridge.upstream.tracked import Tracked


def tracked(cvm_id: str, *, fresh: bool = True) -> Tracked:
    snapshot = Snapshot(cvm_id, "{}", "running", None, None, None, fresh=fresh)
    return Tracked.loaded(cvm_id, snapshot, 0.0)


def written(stored: StoredSnapshots, seconds: int) -> list[tuple[int, str]]:
    return [(now, found.cvm_id) for now in range(seconds) if (found := stored.due(float(now)))]


def test_a_few_snapshots_are_written_again_once_a_minute_each() -> None:
    stored, watches = StoredSnapshots(), [tracked("a"), tracked("b")]
    for each in watches:
        stored.confirmed(each, 0.0)
        stored.confirmed(each, 50.0)
    assert written(stored, 130) == [(60, "a"), (64, "b"), (120, "a"), (124, "b")]


def test_many_snapshots_take_turns_at_one_pace() -> None:
    stored = StoredSnapshots()
    for number in range(1000):
        stored.confirmed(tracked(f"cvm-{number:04}"), 0.0)
    found = written(stored, 2000)
    assert len(found) == (2000 - EACH_AT_MOST) / ONE_EVERY
    assert len({cvm_id for _, cvm_id in found}) == len(found)


def test_an_event_puts_it_off_and_a_stale_or_dropped_one_is_left_alone() -> None:
    stored, stale, dropped, changed = StoredSnapshots(), tracked("s", fresh=False), tracked("d"), tracked("c")
    for each in (stale, dropped, changed):
        stored.confirmed(each, 0.0)
    stored.stored(changed, 30.0)
    stored.forget("d")
    assert written(stored, 100) == [(90, "c")]

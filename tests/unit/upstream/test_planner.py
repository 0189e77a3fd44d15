from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bridge.events import parse_state
from bridge.store.snapshots import Snapshot
from bridge.upstream.planner import HOLD_AT_LEAST, MOTION_AT_MOST, Batch, Close, Open, PlanLimits, Read, plan
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import Demand, ReadSchedule, Seen, Tracked


def cvm(name: str, status: str = "running", *, pinned: bool = False, due: float = 1e9) -> Tracked:
    state = parse_state(f'{{"status":"{status}"}}')
    snapshot = Snapshot(name, state.raw, status, name, None, None)
    seen, demand, reads = Seen(snapshot=snapshot, state=state), Demand(pinned=pinned), ReadSchedule(due=due)
    return Tracked(name, seen=seen, demand=demand, reads=reads)


def within(streams: int, requests: int, *, batch: bool = True, poll_interval: float = 10.0) -> PlanLimits:
    return PlanLimits(streams=streams, poll_interval=poll_interval, requests=requests, batch=batch)


def held(index: int, tracked: Tracked, since: float = 0.0) -> Slot:
    tracked.stream.is_open = True
    return Slot(index, Life.OPEN, tracked.cvm_id, 0.0, since)


def test_motion_goes_before_pins_and_pins_before_the_rest() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b", pinned=True), cvm("c", "starting"))}
    actions = plan(0, watches, [Slot(0), Slot(1)], within(2, 0))
    assert actions == [Open(0, "c"), Open(1, "b")]


def test_a_stream_is_left_alone_for_a_while_and_then_gives_way_to_motion() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b", "starting"))}
    assert plan(HOLD_AT_LEAST - 1, watches, [held(0, watches["a"])], within(1, 0)) == []
    assert plan(HOLD_AT_LEAST, watches, [held(0, watches["a"])], within(1, 0)) == [Close(0)]


def test_a_status_that_should_pass_and_does_not_gives_way_in_the_end() -> None:
    watches = {c.cvm_id: c for c in (cvm("a", "starting"), cvm("b", pinned=True))}
    one = within(1, 0)
    assert plan(MOTION_AT_MOST - 1, watches, [held(0, watches["a"])], one) == []
    assert plan(MOTION_AT_MOST, watches, [held(0, watches["a"])], one) == [Close(0)]


def test_equals_do_not_push_each_other_out() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b"))}
    assert plan(1000, watches, [held(0, watches["a"])], within(1, 0)) == []


def test_a_quarantined_slot_counts_and_frees_at_its_deadline() -> None:
    watches = {"a": cvm("a")}
    slot = Slot(0, Life.QUARANTINED, "b", until=50.0)
    slot.ripen(49)
    assert plan(49, watches, [slot], within(1, 0)) == []
    slot.ripen(50)
    assert plan(50, watches, [slot], within(1, 0)) == [Open(0, "a")]


def test_a_thousand_cvms_are_asked_for_in_even_batches_over_the_interval() -> None:
    watches = {f"{i:04}": cvm(f"{i:04}") for i in range(1000)}
    asked: dict[str, int] = {}
    calls = []
    for tick in range(100):
        now = tick / 10
        for action in plan(now, watches, [], within(0, 20)):
            assert isinstance(action, Batch)
            calls.append(now)
            for name in action.cvm_ids:
                watches[name].batch.asked_at = action.due
                asked[name] = asked.get(name, 0) + 1
    assert set(asked.values()) == {1}
    assert len(asked) == 1000
    assert len(calls) == 5
    assert max(later - sooner for sooner, later in itertools.pairwise(calls)) <= 2.1


def test_ticks_that_come_late_do_not_make_the_round_of_batches_longer() -> None:
    watches = {f"{i:04}": cvm(f"{i:04}") for i in range(2000)}
    asked: dict[str, int] = dict.fromkeys(watches, 0)
    now = 0.0
    while now < 9.99:
        for action in plan(now, watches, [], within(0, 20, poll_interval=1.0)):
            assert isinstance(action, Batch)
            for name in action.cvm_ids:
                watches[name].batch.asked_at = action.due
                asked[name] += 1
        now += 0.16
    assert set(asked.values()) == {10}


def test_reads_keep_to_the_budget_oldest_first() -> None:
    watches = {c.cvm_id: c for c in (cvm("a", due=3), cvm("b", due=1), cvm("c", due=2))}
    assert plan(5, watches, [], within(0, 2, batch=False)) == [Read("b"), Read("c")]


def test_a_cvm_that_is_watched_under_two_names_has_one_stream() -> None:
    state = parse_state('{"id":"b","status":"running"}')
    seen = Seen(snapshot=Snapshot("app_a", state.raw, "running", "a", None, None), state=state)
    watches = {"app_a": Tracked("app_a", seen=seen, reads=ReadSchedule(due=1e9)), "b": cvm("b")}
    assert plan(5, watches, [Slot(0), Slot(1)], within(2, 0)) == [Open(0, "b")]


def test_a_cvm_that_is_not_found_gets_no_stream_and_is_read_beside_the_one_that_it_has() -> None:
    watches = {c.cvm_id: c for c in (cvm("a", due=1), cvm("b"))}
    slots = [held(0, watches["a"]), Slot(1)]
    assert plan(5, watches, slots, within(2, 5, batch=False)) == [Open(1, "b")]
    for each in watches.values():
        each.absence.not_found(4.0, 4.0, 10.0, own=True)
    assert plan(5, watches, slots, within(2, 5, batch=False)) == [Read("a")]


@given(
    st.lists(st.sampled_from(["running", "starting", "stopped", "deleted"]), max_size=12),
    st.lists(st.sampled_from(list(Life)), min_size=5, max_size=5),
    st.integers(0, 5),
)
def test_no_plan_opens_more_than_allowed_or_one_cvm_twice(statuses: list[str], lives: list[Life], budget: int) -> None:
    watches = {f"c{i}": cvm(f"c{i}", status) for i, status in enumerate(statuses)}
    slots = [Slot(i, life, None if life is Life.FREE else f"c{i}", until=1e9) for i, life in enumerate(lives)]
    busy = {slot.cvm_id for slot in slots if slot.streams}
    opened = [action for action in plan(100, watches, slots, within(budget, 5)) if isinstance(action, Open)]
    assert len(opened) + len(busy) <= max(budget, len(busy))
    names = [action.cvm_id for action in opened]
    assert len(set(names)) == len(names)
    assert not busy & set(names)
    assert all(slots[action.index].life is Life.FREE for action in opened)


@given(
    st.lists(st.sampled_from(["running", "starting", "deleted"]), max_size=8),
    st.lists(st.sampled_from(list(Life)), min_size=5, max_size=5),
    st.integers(0, 5),
    st.integers(0, 5),
    st.booleans(),
)
def test_a_plan_changes_nothing(
    statuses: list[str], lives: list[Life], streams: int, requests: int, batch: bool
) -> None:
    watches = {f"c{i}": cvm(f"c{i}", status, due=float(i)) for i, status in enumerate(statuses)}
    slots = [Slot(i, life, None if life is Life.FREE else f"c{i}", until=1.0) for i, life in enumerate(lives)]
    before = repr(watches), repr(slots)
    first = plan(100, watches, slots, within(streams, requests, batch=batch))
    assert (repr(watches), repr(slots)) == before
    assert plan(100, watches, slots, within(streams, requests, batch=batch)) == first


def test_batches_are_not_starved_by_a_queue_of_reads_nor_reads_by_batches() -> None:
    watches = {c.cvm_id: c for c in (cvm(name, due=0) for name in "abc")}
    assert plan(5, watches, [], within(0, 2)) == [Read("a"), Batch(("a", "b", "c"), 5)]
    assert plan(5, watches, [], within(0, 1)) == [Read("a")]


def test_streamed_cvms_are_asked_about_in_the_same_batch_as_the_others() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b"), cvm("c"))}
    slots = [held(0, watches["a"]), held(1, watches["b"])]
    assert plan(5, watches, slots, within(2, 9)) == [Batch(("a", "b", "c"), 5)]

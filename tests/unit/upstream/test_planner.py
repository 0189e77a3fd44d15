from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bridge.events import parse_state
from bridge.store.snapshots import Snapshot
from bridge.upstream.planner import HOLD_AT_LEAST, MOTION_AT_MOST, Batch, Close, Limits, Open, Read, Turns, plan
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import Tracked


def cvm(name: str, status: str = "running", *, pinned: bool = False, due: float = 1e9) -> Tracked:
    state = parse_state(f'{{"status":"{status}"}}')
    snapshot = Snapshot(name, state.raw, status, name, None, None)
    return Tracked(name, snapshot, state, pinned=pinned, read_due=due)


def held(index: int, name: str, since: float = 0.0) -> Slot:
    return Slot(index, Life.OPEN, name, 0.0, since)


def test_motion_goes_before_pins_and_pins_before_the_rest() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b", pinned=True), cvm("c", "starting"))}
    actions = plan(0, watches, [Slot(0), Slot(1)], Limits(2, 10.0, 0, True))
    assert actions == [Open(0, "c"), Open(1, "b")]


def test_a_stream_is_left_alone_for_a_while_and_then_gives_way_to_motion() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b", "starting"))}
    assert plan(HOLD_AT_LEAST - 1, watches, [held(0, "a")], Limits(1, 10.0, 0, True)) == []
    assert plan(HOLD_AT_LEAST, watches, [held(0, "a")], Limits(1, 10.0, 0, True)) == [Close(0)]


def test_a_status_that_should_pass_and_does_not_gives_way_in_the_end() -> None:
    watches = {c.cvm_id: c for c in (cvm("a", "starting"), cvm("b", pinned=True))}
    one = Limits(1, 10.0, 0, True)
    assert plan(MOTION_AT_MOST - 1, watches, [held(0, "a")], one) == []
    assert plan(MOTION_AT_MOST, watches, [held(0, "a")], one) == [Close(0)]


def test_equals_do_not_push_each_other_out() -> None:
    watches = {c.cvm_id: c for c in (cvm("a"), cvm("b"))}
    assert plan(1000, watches, [held(0, "a")], Limits(1, 10.0, 0, True)) == []


def test_a_quarantined_slot_counts_and_frees_at_its_deadline() -> None:
    watches = {"a": cvm("a")}
    slot = Slot(0, Life.QUARANTINED, "b", until=50.0)
    slot.ripen(49)
    assert plan(49, watches, [slot], Limits(1, 10.0, 0, True)) == []
    slot.ripen(50)
    assert plan(50, watches, [slot], Limits(1, 10.0, 0, True)) == [Open(0, "a")]


def test_a_thousand_cvms_are_asked_for_in_even_batches_over_the_interval() -> None:
    watches = {f"{i:04}": cvm(f"{i:04}") for i in range(1000)}
    asked: dict[str, int] = {}
    calls = []
    for tick in range(100):
        now = tick / 10
        for action in plan(now, watches, [], Limits(0, 10.0, 20, True)):
            assert isinstance(action, Batch)
            calls.append(now)
            for name in action.cvm_ids:
                watches[name].batched_at = now
                asked[name] = asked.get(name, 0) + 1
    assert set(asked.values()) == {1}
    assert len(asked) == 1000
    assert len(calls) == 10
    assert max(later - sooner for sooner, later in itertools.pairwise(calls)) <= 1.2


def test_reads_keep_to_the_budget_oldest_first() -> None:
    watches = {c.cvm_id: c for c in (cvm("a", due=3), cvm("b", due=1), cvm("c", due=2))}
    assert plan(5, watches, [], Limits(0, 10.0, 2, False)) == [Read("b"), Read("c")]


@given(
    st.lists(st.sampled_from(["running", "starting", "stopped", "deleted"]), max_size=12),
    st.lists(st.sampled_from(list(Life)), min_size=5, max_size=5),
    st.integers(0, 5),
)
def test_no_plan_opens_more_than_allowed_or_one_cvm_twice(statuses: list[str], lives: list[Life], budget: int) -> None:
    watches = {f"c{i}": cvm(f"c{i}", status) for i, status in enumerate(statuses)}
    slots = [Slot(i, life, None if life is Life.FREE else f"c{i}", until=1e9) for i, life in enumerate(lives)]
    busy = {slot.cvm_id for slot in slots if slot.streams}
    opened = [action for action in plan(100, watches, slots, Limits(budget, 10.0, 5, True)) if isinstance(action, Open)]
    assert len(opened) + len(busy) <= max(budget, len(busy))
    names = [action.cvm_id for action in opened]
    assert len(set(names)) == len(names)
    assert not busy & set(names)
    assert all(slots[action.index].life is Life.FREE for action in opened)


def test_a_burst_of_reads_is_spread_over_the_round_from_then_on() -> None:
    turns, limits = Turns(), Limits(5, 10.0, 20, True)
    due = [turns.next(second / 20, 1000, limits) for second in range(1000)]
    assert all(0.4 <= later - sooner <= 0.6 for sooner, later in itertools.pairwise(due))
    again = [turns.next(moment, 1000, limits) for moment in due]
    assert all(50 <= later - sooner <= 500 for sooner, later in zip(due, again, strict=True))
    assert all(0.4 <= later - sooner <= 0.6 for sooner, later in itertools.pairwise(again))


def test_without_a_batch_route_a_burst_is_spread_over_the_poll_interval() -> None:
    turns, limits = Turns(), Limits(5, 10.0, 20, False)
    due = [turns.next(0.0, 20, limits) for _ in range(20)]
    for _ in range(5):
        assert len({int(moment) for moment in due}) >= 9
        after = [turns.next(moment, 20, limits) for moment in due]
        assert all(later - sooner <= 10.0 for sooner, later in zip(due, after, strict=True))
        due = sorted(after)


def test_batches_are_not_starved_by_a_queue_of_reads_nor_reads_by_batches() -> None:
    watches = {c.cvm_id: c for c in (cvm(name, due=0) for name in "abc")}
    assert plan(5, watches, [], Limits(0, 10.0, 2, True)) == [Read("a"), Batch(("a", "b", "c"))]
    assert plan(5, watches, [], Limits(0, 10.0, 1, True)) == [Read("a")]

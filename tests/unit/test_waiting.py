"""Waiting: what reaches a goal, what fails, and that a cursor neither lets the past count nor misses a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import DROPPED, FRESH, NO_LEADER, NOT_SEEN, READINESS, SNAPSHOT, STALE, STATE, TRANSITION
from bridge.waiting import NO_OPERATIONS, SETTLE_SECONDS, Goal, Outcome, Waiting

Told = tuple[str, dict[str, Any]]


def snapshot(status: str | None, cvm_id: str = "a", *, ready: bool | None = None, **more: Any) -> Told:
    state = {"status": status, **more.pop("state", {})}
    data = {"cvm_id": cvm_id, "name": "web-1", "to": status, "ready": ready, "fresh": True, "stale_reason": None}
    return SNAPSHOT, {**data, "since": "2026-11-24T16:00:00.000Z", "state": state, **more}


def changed(before: str | None, after: str, cvm_id: str = "a", *, ready: bool | None = None, **state: Any) -> Told:
    kind = STATE if before in (None, after) else TRANSITION
    shown = None if after == "deleted" else {"status": after, **state}
    return kind, {"cvm_id": cvm_id, "name": "web-1", "from": before, "to": after, "ready": ready, "state": shown}


def readiness(ready: bool, was_ready: bool | None, cvm_id: str = "a") -> Told:
    return READINESS, {"cvm_id": cvm_id, "name": "web-1", "ready": ready, "was_ready": was_ready, "reason": "running"}


def about(kind: str, cvm_id: str = "a", **more: Any) -> Told:
    return kind, {"cvm_id": cvm_id, "name": "web-1", **more}


def after(told: Sequence[Told], to: str = "ready", **given: Any) -> Waiting:
    waiting = Waiting(Goal.parse(to), **given)
    for kind, data in told:
        waiting.take(kind, data, "2026-11-24T16:01:00.000Z", 0.0)
    return waiting


REACHED, FAILED, UNDECIDED = Outcome.REACHED, Outcome.FAILED, Outcome.UNDECIDED


@pytest.mark.parametrize("text", ["", "runing", "ready,running", "Running", "running,", " running", "running,,error"])
def test_what_nobody_can_wait_for_is_refused_with_what_one_can(text: str) -> None:
    with pytest.raises(ValueError, match="ready, or statuses with commas between them: running"):
        Goal.parse(text)


def test_a_goal_shows_as_it_is_written() -> None:
    assert [str(Goal.parse(each)) for each in ("ready", "stopped,exited")] == ["ready", "exited,stopped"]


@pytest.mark.parametrize(
    ("to", "told", "outcome"),
    [
        ("ready", [snapshot("running", ready=True)], REACHED),
        ("ready", [snapshot("running", ready=False)], UNDECIDED),
        ("running", [snapshot("running", ready=False)], REACHED),
        ("stopped,exited", [snapshot("exited")], REACHED),
        ("ready", [snapshot("running", ready=False), readiness(True, False)], REACHED),
        ("ready", [snapshot("starting", ready=False), changed("starting", "running", ready=True)], REACHED),
        ("ready", [changed(None, "running", ready=True)], REACHED),
        ("ready", [snapshot("error", ready=False)], FAILED),
        ("error", [snapshot("error", ready=False)], REACHED),
        ("ready", [snapshot("starting", state={"boot_error": "no image"})], FAILED),
        ("running", [snapshot("running", state={"boot_error": "an old one"})], REACHED),
        ("ready", [snapshot("running", ready=False, state={"boot_error": "an old one"})], UNDECIDED),
        ("ready", [snapshot("starting"), changed("starting", "starting", boot_error="no image")], FAILED),
        ("error", [snapshot("starting", state={"boot_error": "no image"})], UNDECIDED),
        ("ready", [snapshot("stopping"), changed("stopping", "deleted")], FAILED),
        ("deleted", [snapshot("error"), changed("error", "deleted")], REACHED),
        ("deleted", [snapshot("error")], UNDECIDED),
        ("stopped", [snapshot("error")], FAILED),
    ],
)
def test_the_state_and_what_follows_decide(to: str, told: list[Told], outcome: Outcome) -> None:
    assert after(told, to).outcome is outcome


@pytest.mark.parametrize(
    ("to", "told", "outcome"),
    [
        ("ready", [snapshot("running", ready=True)], UNDECIDED),
        ("running", [changed("running", "running", uptime="1")], UNDECIDED),
        ("ready", [changed("running", "running", ready=True)], UNDECIDED),
        ("ready", [readiness(True, None)], UNDECIDED),
        ("running", [readiness(False, True), readiness(True, False)], UNDECIDED),
        ("ready", [readiness(False, True)], UNDECIDED),
        ("ready", [readiness(False, True), readiness(True, False)], REACHED),
        ("ready", [changed("starting", "running"), readiness(True, None)], REACHED),
        ("running", [changed(None, "running")], REACHED),
        ("ready", [snapshot("error"), changed("error", "error", boot_error="an old one")], UNDECIDED),
        ("ready", [snapshot("stopped"), changed("stopped", "stopped", boot_error="an old one")], UNDECIDED),
        ("ready", [changed("starting", "starting", boot_error="no image")], FAILED),
        ("ready", [changed("starting", "error", boot_error="no image")], FAILED),
        ("ready", [snapshot("deleted")], UNDECIDED),
    ],
)
def test_after_a_cursor_only_what_comes_counts(to: str, told: list[Told], outcome: Outcome) -> None:
    assert after(told, to, after="1-0").outcome is outcome


def test_the_readiness_that_follows_from_the_state_at_the_cursor_is_not_new() -> None:
    def outcome(cursor_of: str | None, entry_id: str) -> Outcome:
        waiting = Waiting(Goal.parse("ready"), after="7-0", cursor_of=cursor_of)
        waiting.take(*readiness(True, False, "a"), None, 0.0, entry_id)
        return waiting.outcome

    assert [outcome(of, "7-1") for of in ("a", None, "b", "")] == [UNDECIDED, UNDECIDED, REACHED, REACHED]
    assert outcome("a", "8-0") is REACHED


def test_a_stale_state_decides_nothing_until_the_bridge_vouches_for_it_again() -> None:
    waiting = after([snapshot("running", ready=True, fresh=False, stale_reason="unreachable")])
    assert (waiting.outcome, waiting.cannot_tell) == (UNDECIDED, "unreachable")
    waiting.take(*about(FRESH), None, 10.0)
    waiting.settle(10.0, led=True)
    assert waiting.outcome is UNDECIDED, "a change that was missed may follow"
    waiting.settle(10.0 + SETTLE_SECONDS, led=True)
    assert waiting.outcome is REACHED
    assert not waiting.is_unsettled


def test_the_change_that_was_missed_counts_and_not_the_state_before_it() -> None:
    told = [snapshot("running", ready=True, fresh=False, stale_reason="unreachable"), about(FRESH)]
    assert after([*told, changed("running", "error", ready=False)]).outcome is FAILED


def test_without_a_leader_nothing_is_decided_until_there_is_one() -> None:
    waiting = after([snapshot("running", ready=True, fresh=False, stale_reason=NO_LEADER)])
    waiting.settle(1000.0, led=False)
    assert (waiting.outcome, waiting.cannot_tell) == (UNDECIDED, NO_LEADER)
    waiting.settle(1000.0, led=True)
    assert waiting.outcome is REACHED


def test_the_bridge_cannot_tell_what_it_has_not_seen_and_what_upstream_does_not_tell() -> None:
    assert after([]).cannot_tell == NOT_SEEN
    assert after([], is_set=True).cannot_tell == ""
    assert after([snapshot("running", ready=None)]).cannot_tell == NO_OPERATIONS
    assert after([snapshot("starting", ready=False)]).cannot_tell == ""
    assert after([snapshot("running"), about(STALE, reason="rate_limited")], "stopped").cannot_tell == "rate_limited"


def test_all_members_must_be_there_at_the_same_moment_and_new_ones_too() -> None:
    told = [snapshot("running", "a", ready=True), snapshot("running", "b", ready=False)]
    assert after(told, is_set=True).outcome is UNDECIDED
    told += [changed(None, "starting", "c", ready=False), readiness(True, False, "b")]
    assert after(told, is_set=True).outcome is UNDECIDED
    told += [readiness(False, True, "a"), changed("starting", "running", "c", ready=True)]
    assert after(told, is_set=True).outcome is UNDECIDED
    told += [readiness(True, False, "a")]
    waiting = after(told, is_set=True)
    assert waiting.outcome is REACHED
    assert {member.cvm_id for member, _, _ in waiting.deciding()} == {"a", "b", "c"}


def test_any_of_them_is_enough_and_only_the_failure_of_all_is_one() -> None:
    told = [snapshot("error", "a"), snapshot("starting", "b", ready=False)]
    assert after(told, is_set=True).outcome is FAILED
    assert after(told, is_set=True, any_of=True).outcome is UNDECIDED
    assert after([*told, changed("starting", "running", "b", ready=True)], any_of=True).outcome is REACHED
    assert after([*told, changed("starting", "error", "b")], any_of=True).outcome is FAILED


def test_a_deleted_member_has_left_and_an_empty_set_is_not_reached() -> None:
    told = [snapshot("running", "a", ready=True), snapshot("stopping", "b"), changed("stopping", "deleted", "b")]
    assert after(told, is_set=True).outcome is REACHED
    assert after([*told, about(DROPPED, "a")], is_set=True).outcome is UNDECIDED
    assert after(told[1:], "deleted", is_set=True).outcome is REACHED
    assert after([*told[1:], about(DROPPED, "b")], "deleted", is_set=True).outcome is REACHED


def test_after_lost_history_only_the_snapshots_that_follow_count() -> None:
    waiting = after([snapshot("running", "a", ready=True), snapshot("starting", "b")], is_set=True)
    waiting.forget()
    assert waiting.outcome is UNDECIDED
    waiting.take(*snapshot("running", "b", ready=True), None, 0.0)
    assert waiting.outcome is REACHED


@pytest.mark.parametrize("data", [{}, {"cvm_id": 7}, {"cvm_id": "a", "to": 7, "ready": "yes", "state": []}])
@pytest.mark.parametrize("kind", [SNAPSHOT, TRANSITION, STATE, READINESS, STALE, FRESH, DROPPED, "cvm.later"])
def test_data_of_unknown_form_decide_nothing(kind: str, data: Mapping[str, Any]) -> None:
    waiting = after([])
    waiting.take(kind, data, None, 0.0)
    waiting.settle(9.0, led=True)
    assert waiting.outcome is UNDECIDED


# Generated logs


@dataclass(frozen=True)
class Truth:
    """One CVM after an event. `status_at` and `ready_at`: the positions at which both became what they are."""

    status: str
    ready: bool
    fresh: bool = True
    status_at: int = 0
    ready_at: int = 0


@dataclass
class Life:
    """A log as a leader writes it, with the truth after each of its events.

    Only what a state entails is written with it, under the next id.
    """

    events: list[Told] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    truths: list[dict[str, Truth]] = field(default_factory=list)
    now: dict[str, Truth] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)

    def write(self, told: Told, cvm_id: str, truth: Truth, *, entailed: bool = False) -> None:
        self.ids.append(f"{len(self.ids)}-1" if entailed else f"{len(self.ids) + 1}-0")
        self.now = {**self.now, cvm_id: truth}
        self.events.append(told)
        self.truths.append(self.now)

    def step(self, cvm_id: str, action: str) -> None:
        at, truth = len(self.events), self.now.get(cvm_id)
        if truth is None:
            ready = action == "running"
            self.write(changed(None, action, cvm_id, ready=ready), cvm_id, Truth(action, ready, True, at, at))
        elif action == "stale":
            if truth.fresh:
                self.write(about(STALE, cvm_id, reason="unreachable"), cvm_id, replace(truth, fresh=False))
        elif action == "operation":
            if truth.fresh:
                self.busy ^= {cvm_id}
                self._ready(cvm_id, truth, truth.status == "running" and cvm_id not in self.busy)
        else:
            self._observe(cvm_id, truth, action)

    def _observe(self, cvm_id: str, truth: Truth, status: str) -> None:
        """A status, or the same one with another field."""
        if not truth.fresh:
            self.write(about(FRESH, cvm_id), cvm_id, truth)
        ready = status == "running" and cvm_id not in self.busy
        at = len(self.events)
        seen = replace(truth, status=status, fresh=True, status_at=at if status != truth.status else truth.status_at)
        shown = replace(seen, ready=ready, ready_at=at if ready != truth.ready else truth.ready_at)
        self.write(changed(truth.status, status, cvm_id, ready=ready), cvm_id, shown)
        if ready != truth.ready:
            self.write(readiness(ready, truth.ready, cvm_id), cvm_id, shown, entailed=True)

    def _ready(self, cvm_id: str, truth: Truth, ready: bool) -> None:
        at = len(self.events)
        told = readiness(ready, truth.ready, cvm_id)
        self.write(told, cvm_id, replace(truth, ready=ready, ready_at=at))


ACTIONS = ("running", "starting", "stopped", "stale", "operation")


@st.composite
def lives(draw: st.DrawFn) -> Life:
    life = Life()
    ids = ("a", "b")[: draw(st.integers(1, 2))]
    for cvm_id in ids:
        life.step(cvm_id, draw(st.sampled_from(ACTIONS[:3])))
    for _ in range(draw(st.integers(0, 14))):
        life.step(draw(st.sampled_from(ids)), draw(st.sampled_from(ACTIONS)))
    return life


def is_there(to: str, truth: Truth, cursor: int) -> bool:
    if to == "ready":
        # A status that is new makes the readiness that it has new as well.
        return truth.fresh and truth.ready and max(truth.ready_at, truth.status_at) >= cursor
    return truth.fresh and truth.status == to and truth.status_at >= cursor


@given(lives(), st.data())
def test_the_first_moment_after_the_cursor_counts_and_none_before_it(life: Life, data: st.DataObject) -> None:
    cursor = data.draw(st.integers(0, len(life.events)))
    to = data.draw(st.sampled_from(("ready", "running", "stopped")))
    any_of = data.draw(st.booleans())
    kind, told = life.events[cursor - 1] if cursor else ("", {"cvm_id": ""})
    cursor_of = told["cvm_id"] if kind in (TRANSITION, STATE) else ""
    waiting = Waiting(
        Goal.parse(to), after=life.ids[cursor - 1] if cursor else "0-0", cursor_of=cursor_of, is_set=True, any_of=any_of
    )
    for cvm_id, truth in (life.truths[cursor - 1] if cursor else {}).items():
        waiting.take(*snapshot(truth.status, cvm_id, ready=truth.ready, fresh=truth.fresh), None, 0.0)
    for at in range(cursor, len(life.events)):
        waiting.take(*life.events[at], None, float(at), life.ids[at])
        kind, told = life.events[at]
        moment = [
            is_there(to, truth, cursor) and not recovering(life, at, each) for each, truth in life.truths[at].items()
        ]
        expected = any(moment) if any_of else all(moment)
        assert (waiting.outcome is REACHED) is expected, (kind, told)
        if expected:
            return


def recovering(life: Life, at: int, cvm_id: str) -> bool:
    """Whether its last event until then is that its watch is fresh again."""
    last = next(told for told in reversed(life.events[: at + 1]) if told[1]["cvm_id"] == cvm_id)
    return last[0] == FRESH

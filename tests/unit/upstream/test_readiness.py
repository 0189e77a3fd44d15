"""Readiness follows from what upstream told last, in any order of answers: never repeated, never missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.events import READINESS, RUNNING, parse_state
from bridge.readiness import Operation, Readiness, Told
from bridge.store.snapshots import Snapshot
from bridge.upstream.changes import Step, grow_stale, observe, tell
from bridge.upstream.tracked import Observation, Tracked

NOW = "2026-11-24T16:00:00.000Z"
UPDATE = {"in_progress": True, "operation_type": "update", "operation_started_at": "t1", "correlation_id": "c1"}
IDLE = {"in_progress": False, "operation_type": None, "operation_started_at": None, "correlation_id": None}


class Life:
    """One CVM's events, decided as the recorder decides them."""

    def __init__(self) -> None:
        self.tracked = Tracked("a")
        self.now = 0.0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.steps: list[Step] = []

    def sees(self, status: str | None, fields: Mapping[str, Any] | None = None, *, asked_at: float = -1) -> None:
        self.now += 1
        state = None if status is None else parse_state(json.dumps({"id": "a", "status": status, **(fields or {})}))
        sent_at = self.now if asked_at < 0 else asked_at
        observation = Observation(state=state, by="poll", sent_at=sent_at, made_at=self.now)
        if sent_at < self.tracked.seen.made_at:
            return
        steps, after = observe(self.tracked, observation, NOW)
        for step in steps:
            self._add(step)
        self.tracked.seen.apply(observation, after, changed=False)
        self.tracked.operations.observed(observation)

    def told(self, status: str | None, fields: Mapping[str, Any], *, asked_at: float = -1) -> None:
        """As `Recorder.tell`."""
        self.now += 1
        told = Told.by(fields)
        if told is None or not self.tracked.takes(told, status, self.now if asked_at < 0 else asked_at):
            return
        step, after = tell(self.tracked, told, NOW)
        if step is not None:
            self._add(step)
        elif after is not None:
            self.tracked.seen.note(after)

    def is_not_answered(self) -> None:
        step = grow_stale(self.tracked, "unreachable", NOW)
        if step is not None:
            self._add(step)

    def _add(self, step: Step) -> None:
        self.tracked.seen.decide(step.snapshot)
        self.steps.append(step)
        for draft in (step.draft, step.second):
            if draft is not None:
                self.events.append((draft.type, json.loads(draft.data)))

    @property
    def readiness(self) -> list[tuple[bool | None, str]]:
        """`ready` and `reason` of each readiness event."""
        return [(data["ready"], data["reason"]) for kind, data in self.events if kind == READINESS]


def running() -> Life:
    life = Life()
    life.told(RUNNING, IDLE)
    life.sees(RUNNING)
    return life


def test_first_sight_has_the_readiness_and_makes_no_event_of_its_own() -> None:
    life = running()
    ((kind, data),) = life.events
    assert (kind, data["ready"], data["operation"]) == ("cvm.state", True, None)


def test_an_upstream_that_tells_nothing_of_operations_makes_no_readiness() -> None:
    life = Life()
    for status in ("starting", RUNNING, "stopped", None):
        life.sees(status)
        life.told(status, {"status": status})
    assert life.readiness == []
    assert [data["ready"] for _, data in life.events] == [None] * 4


def test_an_update_of_a_running_cvm_is_not_ready_and_then_ready() -> None:
    life = running()
    for _ in range(3):
        life.told(RUNNING, UPDATE)
        life.sees(RUNNING)
    life.told(RUNNING, IDLE)
    assert life.readiness == [(False, "operation"), (True, RUNNING)]
    began = life.events[1][1]
    assert began["operation"] == {"type": "update", "started_at": "t1", "correlation_id": "c1"}
    assert began["was_ready"] is True


def test_a_status_and_the_operation_that_change_together_are_two_events_in_one_step() -> None:
    life = running()
    life.told("restarting", UPDATE)
    life.sees("restarting")
    life.told(RUNNING, IDLE)
    life.sees(RUNNING)
    assert [kind for kind, _ in life.events[1:]] == ["cvm.transition", READINESS] * 2
    assert [step.second is not None for step in life.steps[1:]] == [True, True]
    assert life.readiness == [(False, "operation"), (True, RUNNING)]


def test_an_operation_that_is_told_only_after_the_status_is_back_takes_ready_back() -> None:
    """As with a streamed CVM: what no answer has told yet is not made up."""
    life = running()
    life.sees("restarting")
    life.sees(RUNNING)
    life.told(RUNNING, UPDATE)
    life.told(RUNNING, IDLE)
    assert life.readiness == [(False, "restarting"), (True, RUNNING), (False, "operation"), (True, RUNNING)]


def test_an_answer_that_was_asked_for_before_the_last_observation_counts_for_nothing() -> None:
    life = running()
    asked_at = life.now
    life.told(RUNNING, UPDATE)
    life.sees(RUNNING)
    life.told(RUNNING, IDLE, asked_at=asked_at)
    assert life.readiness == [(False, "operation")]


def test_another_operation_is_news_and_more_words_about_the_same_one_are_not() -> None:
    life = running()
    life.told(RUNNING, {"in_progress": True})
    life.told(RUNNING, UPDATE)
    assert life.readiness == [(False, "operation")]
    assert life.tracked.seen.snapshot is not None
    assert life.tracked.seen.snapshot.operation == Operation("update", "t1", "c1")
    life.told(RUNNING, {**UPDATE, "correlation_id": "c2"})
    assert life.readiness == [(False, "operation")] * 2


def test_after_a_recovery_fresh_comes_before_the_readiness() -> None:
    life = running()
    life.is_not_answered()
    life.told(RUNNING, UPDATE)
    assert life.readiness == []
    life.sees(RUNNING)
    assert [kind for kind, _ in life.events[2:]] == ["watch.fresh", READINESS]
    fresh, last = (step.snapshot for step in life.steps[2:])
    assert (fresh.ready, last.ready) == (True, False)


def test_a_failed_boot_is_the_reason_and_a_cvm_that_is_gone_has_no_operation() -> None:
    life = running()
    life.sees("error", {"boot_error": "no such image"})
    life.told("error", UPDATE)
    life.sees(None)
    assert life.readiness == [(False, "boot_error"), (False, "operation"), (False, "deleted")]
    assert life.events[-1][1]["operation"] is None


def test_a_state_that_tells_of_operations_itself_is_not_contradicted() -> None:
    life = Life()
    life.sees(RUNNING, {"in_progress": False})
    for _ in range(3):
        life.told(RUNNING, UPDATE)
        life.sees(RUNNING, {"in_progress": False})
    assert life.readiness == []
    life.sees(RUNNING, {"in_progress": True})
    life.told(RUNNING, UPDATE)
    life.told(RUNNING, IDLE)
    assert life.readiness == [(False, "operation")]
    assert life.tracked.seen.snapshot is not None
    assert life.tracked.seen.snapshot.operation == Operation("update", "t1", "c1")


@pytest.mark.parametrize("odd", [{"operation_type": 5, "correlation_id": "x" * 999}, {}])
def test_odd_fields_of_an_operation_are_left_out(odd: dict[str, Any]) -> None:
    assert Told.by({"in_progress": True, **odd}) == Told(Operation())
    assert Told.by({"in_progress": "yes", **odd}) is None


def test_a_snapshot_of_the_version_before_has_no_readiness() -> None:
    made = Snapshot("a", '{"status":"running"}', RUNNING, "web", NOW, NOW, "1-1", app_id="x", ready=True)
    made = replace(made, operation=Operation("update"))
    assert Snapshot.from_json("a", made.to_json()) == made
    fields = json.loads(made.to_json())
    old = {name: value for name, value in fields.items() if name not in ("app_id", "ready", "operation")}
    assert Snapshot.from_json("a", json.dumps(old, separators=(",", ":"))).readiness == Readiness()


statuses = st.sampled_from([RUNNING, "restarting", "stopped"])
operations = st.sampled_from([None, {}, IDLE, UPDATE, {**UPDATE, "correlation_id": "c2"}, {"in_progress": True}])


class Lives(RuleBasedStateMachine):
    """A CVM whose status and operations change while answers come late, and a leader that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.status = RUNNING
        self.fields: Mapping[str, Any] = {}
        self.asked: list[tuple[float, str, Mapping[str, Any]]] = []

    @rule(status=statuses, fields=operations)
    def changes(self, status: str, fields: Mapping[str, Any] | None) -> None:
        self.status, self.fields = status, fields or {}

    @rule()
    def is_seen(self) -> None:
        self.life.sees(self.status)

    @rule()
    def is_seen_with_its_operation(self) -> None:
        self.life.sees(self.status, self.fields)
        self._follows_from_what_was_told_last()

    def _follows_from_what_was_told_last(self) -> None:
        snapshot, told = self.life.tracked.seen.snapshot, Told.by(self.fields)
        state = self.life.tracked.seen.state
        if state is not None:
            told = Told.by(state.fields) or told
        if snapshot is not None and snapshot.status == self.status and snapshot.fresh and told is not None:
            assert snapshot.ready == (self.status == RUNNING and told.operation is None)
            assert bool(snapshot.operation) == bool(told.operation)

    @rule()
    def is_gone(self) -> None:
        self.life.sees(None)

    @rule()
    def is_told(self) -> None:
        self.life.told(self.status, self.fields)
        self._follows_from_what_was_told_last()

    @rule()
    def is_told_and_seen(self) -> None:
        self.life.told(self.status, self.fields)
        self.life.sees(self.status)
        self._follows_from_what_was_told_last()

    @rule()
    def is_asked(self) -> None:
        self.life.now += 1
        self.asked.append((self.life.now, self.status, self.fields))

    @rule(late=st.integers(0, 3))
    def is_answered(self, late: int) -> None:
        if self.asked:
            asked_at, status, fields = self.asked.pop(min(late, len(self.asked) - 1))
            self.life.told(status, fields, asked_at=asked_at)

    @rule()
    def is_not_answered(self) -> None:
        self.life.is_not_answered()

    @rule()
    def has_a_new_leader(self) -> None:
        self.life.tracked = Tracked.loaded("a", self.life.tracked.seen.snapshot, 0.0)
        self.asked.clear()

    @invariant()
    def the_snapshot_agrees_with_itself(self) -> None:
        snapshot = self.life.tracked.seen.snapshot
        if snapshot is not None and snapshot.ready is not None:
            assert snapshot.ready == (snapshot.status == RUNNING and snapshot.operation is None)
        if snapshot is not None and snapshot.ready is None:
            assert snapshot.operation is None

    @invariant()
    def the_events_tell_the_snapshot_each_change_once(self) -> None:
        ready: bool | None = None
        operation = None
        first = True
        for kind, data in self.life.events:
            if "ready" not in data:
                continue
            if kind == READINESS:
                began = data["operation"] and operation and data["operation"] != operation
                assert data["ready"] != ready or bool(data["operation"]) != bool(operation) or began
                assert data["was_ready"] == ready
                ready, operation = data["ready"], data["operation"]
            elif first:
                ready, operation, first = data["ready"], data["operation"], False
            else:
                pending = data["ready"], bool(data["operation"])  # the readiness that follows tells it
                assert pending == (ready, bool(operation)) or self._follows(data)
        snapshot = self.life.tracked.seen.snapshot
        if snapshot is not None and snapshot.status is not None:
            assert (snapshot.ready, bool(snapshot.operation)) == (ready, bool(operation))

    def _follows(self, data: dict[str, Any]) -> bool:
        return any(step.second and json.loads(step.draft.data) == data for step in self.life.steps)


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase

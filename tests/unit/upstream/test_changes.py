from __future__ import annotations

from bridge.events import State, parse_state
from bridge.upstream.changes import grow_stale, is_late, observe
from bridge.upstream.tracked import Observation, Tracked

NOW = "2026-11-24T16:00:00.000Z"


def seen(text: str | None, sent: float = 1.0, made: float = 2.0) -> Observation:
    state: State | None = parse_state(text) if text is not None else None
    return Observation(state=state, by="poll", sent_at=sent, made_at=made)


def apply(tracked: Tracked, observation: Observation) -> list[str]:
    steps, after = observe(tracked, observation, NOW)
    tracked.seen.apply(observation, after, changed=False)
    return [step.draft.type for step in steps]


def test_first_sight_is_a_state_and_a_change_of_status_a_transition() -> None:
    tracked = Tracked("cvm")
    assert apply(tracked, seen('{"status":"starting"}')) == ["cvm.state"]
    assert apply(tracked, seen('{"status":"running"}')) == ["cvm.transition"]
    assert apply(tracked, seen('{"status":"running","boot_progress":"done"}')) == ["cvm.state"]


def test_uptime_alone_is_no_event() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"running","uptime":"1s"}'))
    assert apply(tracked, seen('{"status":"running","uptime":"2s"}')) == []


def test_gone_is_a_transition_to_deleted_once() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"running"}'))
    assert apply(tracked, seen(None)) == ["cvm.transition"]
    assert apply(tracked, seen(None)) == []


def test_recovery_is_fresh_and_then_the_transition() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"running"}'))
    step = grow_stale(tracked, "unreachable", NOW)
    assert step is not None
    tracked.seen.snapshot = step.snapshot
    assert grow_stale(tracked, "unreachable", NOW) is None
    assert apply(tracked, seen('{"status":"stopped"}')) == ["watch.fresh", "cvm.transition"]


def test_a_recovery_without_a_change_stores_what_was_seen() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"running","uptime":"1s"}'))
    step = grow_stale(tracked, "unreachable", NOW)
    assert step is not None
    tracked.seen.snapshot = step.snapshot
    (recovery,), after = observe(tracked, seen('{"status":"running","uptime":"9s"}'), "2026-11-24T17:00:00.000Z")
    assert recovery.snapshot == after
    assert (after.fresh, after.observed_at) == (True, "2026-11-24T17:00:00.000Z")


def test_an_answer_sent_before_the_last_observation_was_made_is_late() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"a"}', sent=1, made=5))
    assert is_late(tracked, seen('{"status":"b"}', sent=4, made=9))
    assert not is_late(tracked, seen('{"status":"b"}', sent=5, made=9))


def test_since_moves_with_the_status_only() -> None:
    tracked = Tracked("cvm")
    apply(tracked, seen('{"status":"running"}'))
    _, after = observe(tracked, seen('{"status":"running","name":"x"}'), "2026-11-24T17:00:00.000Z")
    assert (after.since, after.observed_at, after.name) == (NOW, "2026-11-24T17:00:00.000Z", "x")

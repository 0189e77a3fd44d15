from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import unix
from bridge.events import DROPPED, STALE, STATE, TRANSITION, Draft, Event, cvm_data, parse_state, watch_data
from bridge.store.snapshots import Snapshot
from bridge.web.dropin.last_state import VOUCHED_FOR, LastState, raw_state

AT = "2026-11-24T16:00:00.000Z"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
awkward = st.one_of(st.text(), st.sampled_from(['"state":', '"data":{"state":1', '\\"state\\":', "state", '"']))


def event(kind: str, data: str, cvm_id: str = "a") -> Event:
    return Event.from_log("5-0", Draft(kind, cvm_id, AT, data).envelope("/bridge/x", 5))


@given(
    awkward.filter(bool),
    awkward,
    awkward,
    st.dictionaries(st.text(), json_values, max_size=4),
    st.sampled_from([None, 2]),
)
def test_the_state_is_taken_from_the_event_unchanged(
    cvm_id: str, name: str, status: str, fields: dict[str, object], indent: int | None
) -> None:
    state = parse_state(json.dumps({**fields, "status": status}, indent=indent, ensure_ascii=indent is None))
    data = cvm_data(cvm_id, name, (name, status), "stream", state.raw)
    made = event(TRANSITION, data, cvm_id)
    assert raw_state(made) == state.raw
    assert LastState().after(made).block == f"event: state\ndata: {state.raw}\n\n".encode()
    assert LastState().after(made).status == status


def test_a_404_ends_a_cvm_and_the_status_deleted_does_not() -> None:
    gone = LastState().after(event(TRANSITION, cvm_data("a", None, ("running", "deleted"), "poll", None)))
    state = LastState().after(event(STATE, cvm_data("a", None, (None, "deleted"), "poll", '{"status":"deleted"}')))
    assert (gone.gone, gone.status is not None) == (True, True)
    assert (state.gone, state.status is not None) == (False, True)
    assert LastState.of(Snapshot("a", None, "deleted", None, None, AT)).gone


def test_stale_and_dropped_watches_have_a_reason() -> None:
    running = LastState().after(event(STATE, cvm_data("a", None, (None, "running"), "poll", '{"status":"running"}')))
    assert running.stale_reason(led=True, now=unix(AT) + 1e6) is None
    assert running.stale_reason(led=False, now=unix(AT) + VOUCHED_FOR) is None
    assert running.stale_reason(led=False, now=unix(AT) + VOUCHED_FOR + 1) == "no_leader"
    stale = running.after(event(STALE, watch_data("a", None, "rate_limited")))
    assert stale.stale_reason(led=True, now=unix(AT)) == "rate_limited"
    assert stale.block == running.block
    assert running.after(event(DROPPED, watch_data("a", None))).status is None


def test_only_a_newer_event_counts() -> None:
    state = LastState(event_id="5-1")
    assert [state.older_than(other) for other in ("5-0", "5-1", "5-2", "10-0", "rubbish")] == [
        False,
        False,
        True,
        True,
        False,
    ]

"""What a stream says when: pure, with time passed in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.bodies import frame
from bridge.simulator.streams import Schedule, frames
from bridge.simulator.world import Cvm, World


@pytest.fixture
def world() -> World:
    return World(cvms=1, frozen=True)


@pytest.fixture
def cvm(world: World) -> Cvm:
    return world.cvms[0]


def said(cvm: Cvm, pace: Schedule, now: float, *, target: str = "deleted", push: bool = False) -> list[str]:
    return [event for event, _ in frames(cvm, target, pace, now, push=push)[0]]


def test_a_state_comes_on_connect_and_at_each_interval(cvm: Cvm) -> None:
    pace = Schedule(100.0, 5, 30)
    heard = {now: said(cvm, pace, now) for now in (100.0, 101.0, 104.9, 105.0, 109.0, 110.2, 115.0)}

    assert {now for now, events in heard.items() if events == ["state"]} == {100.0, 105.0, 110.2, 115.0}


def test_a_target_already_met_completes_at_once_after_a_state(cvm: Cvm) -> None:
    events, ended = frames(cvm, "running", Schedule(0.0, 5, 30), 0.0, push=False)

    assert ([event for event, _ in events], ended) == (["state", "complete"], True)
    assert json.loads(events[1][1]) == {"status": "running", "elapsed": 0.0, "target": "running"}


def test_the_timeout_ends_it(cvm: Cvm) -> None:
    events, ended = frames(cvm, "deleted", Schedule(0.0, 5, 10), 10.0, push=False)

    assert ([event for event, _ in events], ended) == (["timeout"], True)
    assert json.loads(events[0][1])["target"] == "deleted"


def test_a_deleted_cvm_is_an_error_at_the_next_read(world: World, cvm: Cvm) -> None:
    pace = Schedule(0.0, 5, 30)
    said(cvm, pace, 0.0)
    world.delete(cvm)

    assert said(cvm, pace, 4.0) == []
    assert frames(cvm, "deleted", pace, 5.0, push=False)[1] is True
    assert said(cvm, pace, 6.0, push=True) == ["error"]


def test_a_push_sends_at_once_and_leaves_the_schedule(cvm: Cvm) -> None:
    pace = Schedule(0.0, 5, 30)
    said(cvm, pace, 0.0)

    assert said(cvm, pace, 4.0, push=True) == ["state"]
    assert said(cvm, pace, 5.0) == ["state"]


@given(st.floats(0, 1000), st.lists(st.floats(0, 60), min_size=1, max_size=20))
def test_the_next_read_is_always_ahead_and_a_multiple_of_the_interval(start: float, waits: list[float]) -> None:
    pace, now = Schedule(start, 5, 600), start
    for wait in waits:
        now += wait
        pace.is_due(now)
        assert now < pace.due <= now + 5.001
        assert (pace.due - start) / 5 == pytest.approx(round((pace.due - start) / 5))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_frame_is_one_event_in_each_line_end(line_end: bytes) -> None:
    wanted = [b"event: state", b'data: {"status":"a"}', b"", b""]
    assert frame("state", b'{"status":"a"}', line_end) == line_end.join(wanted)


def test_raw_data_with_line_ends_stays_one_event() -> None:
    assert frame("state", b"a\r\nb\rc\n", b"\n") == b"event: state\ndata: a\ndata: b\ndata: c\ndata: \n\n"

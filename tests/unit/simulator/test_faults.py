"""Faults on request: who meets which, and how often."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bridge.simulator.faults import Fault, Faults


def test_a_fault_applies_as_often_as_its_times() -> None:
    faults = Faults()
    twice = faults.add(Fault(route="state", status=500, times=2))

    assert [faults.take("state", "a", "alice") for _ in range(3)] == [twice, twice, None]
    assert (twice.hits, faults.all()) == (2, [twice])


def test_a_fault_without_times_stays_until_it_is_removed() -> None:
    faults = Faults()
    fault = faults.add(Fault(route="*", status=500, times=None))

    assert all(faults.take("batch", None, None) is fault for _ in range(50))
    assert faults.remove(fault.id)
    assert not faults.remove(fault.id)
    assert faults.take("batch", None, None) is None


def test_a_fault_applies_only_to_its_route_cvm_and_user() -> None:
    faults = Faults()
    fault = faults.add(Fault(route="stream", cvm="a", user="alice", status=500, times=None))

    assert faults.take("state", "a", "alice") is None
    assert faults.take("stream", "b", "alice") is None
    assert faults.take("stream", "a", "bob") is None
    assert faults.take("stream", None, "alice") is None
    assert faults.take("stream", "a", "alice") is fault


def test_the_oldest_fault_comes_first() -> None:
    faults = Faults()
    first, second = (faults.add(Fault(route="state", status=status)) for status in (500, 502))

    assert [faults.take("state", None, None) for _ in range(3)] == [first, second, None]


@pytest.mark.parametrize(
    "fields",
    [
        {"route": "nowhere"},
        {"route": "state", "status": 99},
        {"route": "state", "times": 0},
        {"route": "state", "action": "silent"},
        {"route": "stream", "action": "end", "status": 500},
        {"route": "state", "statsu": 500},
    ],
)
def test_a_contradictory_fault_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(fields)

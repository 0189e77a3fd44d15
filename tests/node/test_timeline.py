"""What the dashboard's timeline makes of events: every moment of the period has one value, and nothing is made up."""

from __future__ import annotations

from typing import Any

from bridge.clock import rfc3339
from tests.node.runtime import run

RUNNING = {"status": "running", "ready": True, "fresh": True, "reason": None}
PERIOD: dict[str, int] = {"begin": 1_000_000, "kept": 1_000_000, "end": 1_100_000}


def event(second: int, type: str, **data: Any) -> dict[str, Any]:
    return {"time": rfc3339(1000 + second), "type": type, "data": data}


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, int]]] = {
    "quiet": ([], RUNNING, PERIOD),
    "not kept": ([], RUNNING, {**PERIOD, "kept": 1_040_000}),
    "not read": ([], RUNNING, {**PERIOD, "kept": 2_000_000}),
    "changed": (
        [
            event(20, "cvm.transition", **{"from": "running", "to": "stopping"}),
            event(20, "cvm.readiness", ready=False, was_ready=True),
            event(50, "watch.stale", reason="not_found"),
        ],
        {**RUNNING, "status": "stopping", "ready": False, "fresh": False, "reason": "not_found"},
        PERIOD,
    ),
    "new": ([event(30, "cvm.state", **{"from": None, "to": "running", "ready": True})], RUNNING, PERIOD),
    "dropped": (
        [event(60, "cvm.state", **{"from": "running", "to": "running"}), event(80, "watch.dropped")],
        RUNNING,
        PERIOD,
    ),
    "later than the clock": ([event(200, "watch.stale", reason="conflict")], RUNNING, PERIOD),
}


def test_every_moment_has_what_the_events_tell_and_no_more() -> None:
    found = dict(zip(CASES, run("lanes.mjs", list(CASES.values())), strict=True))
    for lanes in found.values():
        for segments in lanes.values():
            ends = [each["to"] for each in segments]
            assert [each["from"] for each in segments] == [1_000_000, *ends[:-1]]
            assert ends[-1] == 1_100_000
    shown = {case: {lane: list(map(_begins, each)) for lane, each in lanes.items()} for case, lanes in found.items()}
    assert shown["quiet"] == {"status": [("running", 0)], "ready": [("ready", 0)], "trust": [("fresh", 0)]}
    assert shown["not kept"]["status"] == [(None, 0), ("running", 40)]
    assert shown["not read"]["trust"] == [(None, 0)]
    assert shown["changed"] == {
        "status": [("running", 0), ("stopping", 20)],
        "ready": [("ready", 0), ("not ready", 20)],
        "trust": [("fresh", 0), ("stale: not found", 50)],
    }
    assert shown["new"] == {
        "status": [(None, 0), ("running", 30)],
        "ready": [(None, 0), ("ready", 30)],
        "trust": [(None, 0), ("fresh", 30)],
    }
    assert shown["dropped"]["status"] == [("running", 0), (None, 80)]
    assert shown["later than the clock"]["trust"] == [("fresh", 0)]


def _begins(segment: dict[str, Any]) -> tuple[str | None, int]:
    """Its value, and in which second of the period it begins."""
    return segment["value"], segment["from"] // 1000 - 1000

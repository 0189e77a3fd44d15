"""Milliseconds for one tick of the planner, by the number of watched CVMs."""

from __future__ import annotations

import statistics
import time

from bridge.events import parse_state
from bridge.store.snapshots import Snapshot
from bridge.upstream.planner import PlanLimits, plan
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import ReadSchedule, Seen, Tracked

SIZES = (100, 1_000, 10_000)
TICKS = 50


def watches(count: int) -> dict[str, Tracked]:
    state = parse_state('{"status":"running"}')
    snapshot = Snapshot("", state.raw, "running", None, None, None)
    return {
        f"{i:05}": Tracked(f"{i:05}", seen=Seen(snapshot=snapshot, state=state), reads=ReadSchedule(due=1e9))
        for i in range(count)
    }


def median_ms(count: int) -> float:
    """Five streams are held; the rest is polled by batches."""
    followed = watches(count)
    slots = [Slot(i, Life.OPEN, f"{i:05}") for i in range(5)]
    limits = PlanLimits(streams=5, poll_interval=10.0, requests=20, batch=True)
    times = []
    for tick in range(TICKS):
        began = time.perf_counter()
        plan(1000 + tick / 10, followed, slots, limits)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def run() -> None:
    print("planner: CVMs watched -> milliseconds a tick (median)")
    for count in SIZES:
        print(f"  {count:>6}  {median_ms(count):8.2f}")


if __name__ == "__main__":
    run()

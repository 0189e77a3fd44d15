"""What webhooks promise, against what a run of the scenario has seen."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.hostile.dispatchers import LONG_LIVED
from benchmarks.hostile.scenario import CVMS, Seen

P99 = 1_000
"""Milliseconds from append to receipt."""

GROWTH = 1.1
"""Memory may be so many times as much in the last quarter as in the second one; noise of a few MB aside."""

NOISE_MB = 4.0


@dataclass(frozen=True)
class Promise:
    """`kept`: None for a figure that is only told."""

    text: str
    seen: str
    kept: bool | None = None


def judged(seen: Seen) -> list[Promise]:
    firsts = _firsts((path, int(number), at) for at, path, number in seen.receipts)
    everywhere = {(f"/n{number:03}", event) for number in range(seen.plan.neighbours) for event in seen.written}
    waits = sorted((at - seen.written[event]) * 1000 for (_, event), at in firsts.items() if event in seen.written)
    missing = everywhere - firsts.keys()
    repeated = len(seen.receipts) - len(firsts)
    late = _behind_later((path, int(number)) for _, path, number in seen.receipts)
    return [
        Promise("each neighbour has every event", f"{len(missing)} of {len(everywhere)} are missing", kept=not missing),
        Promise("in order for each CVM", f"{_behind_later(firsts)} behind a later one", kept=not _behind_later(firsts)),
        Promise("append to receipt, p99 below 1 s", _tail(waits), kept=bool(waits) and _share(waits, 0.99) < P99),
        Promise(
            "no attempt at a neighbour failed", f"at {len(seen.failed_neighbours)}", kept=not seen.failed_neighbours
        ),
        _flat("memory of a dispatcher", [each[LONG_LIVED] for each in seen.dispatchers_mb]),
        _flat("memory of Redis", seen.redis_mb),
        Promise(
            "no redirect is followed",
            f"{sum(path == '/redirected' for _, path, _ in seen.receipts)} were",
            kept=all(path != "/redirected" for _, path, _ in seen.receipts),
        ),
        _received(seen),
        Promise("healed ones get what waits", f"{seen.pending} left after {seen.healing:.0f} s", kept=not seen.pending),
        Promise(
            "dispatchers end only when told", f"statuses {sorted(set(seen.statuses))}", kept=not any(seen.statuses)
        ),
        Promise("no error that is nobody's", f"{dict(seen.errors) or 'none'}", kept=not seen.errors),
        Promise("received more than once", f"{repeated} of {len(seen.receipts)}, {late} of them behind a later one"),
        Promise("dispatchers at most, MB", f"{max(max(each) for each in seen.dispatchers_mb):.0f}"),
        Promise("done to dispatchers", ", ".join(f"{count} {what}" for what, count in seen.done.items())),
        Promise(
            "hostile answers", f"{seen.used.total()} of {len(seen.used)} kinds, each {min(seen.used.values())} or more"
        ),
    ]


def _firsts(receipts: Iterable[tuple[str, int, float]]) -> dict[tuple[str, int], float]:
    """When each came first, in that order."""
    found: dict[tuple[str, int], float] = {}
    for path, event, at in receipts:
        found.setdefault((path, event), at)
    return found


def _behind_later(receipts: Iterable[tuple[str, int]]) -> int:
    """How many came after a later event of the same CVM; `receipts`: path and number, as they came."""
    latest, behind = defaultdict[tuple[str, int], int](int), 0
    for path, event in receipts:
        lane = path, event % CVMS
        behind += event < latest[lane]
        latest[lane] = max(event, latest[lane])
    return behind


def _received(seen: Seen) -> Promise:
    unsent = seen.recorded - {delivery for _, delivery, *_ in seen.read}
    return Promise(
        "what counts as delivered was received", f"{len(unsent)} of {len(seen.recorded)} were not", kept=not unsent
    )


def _flat(text: str, megabytes: Sequence[float]) -> Promise:
    quarter = len(megabytes) // 4
    early, late = statistics.median(megabytes[quarter : 2 * quarter]), statistics.median(megabytes[3 * quarter :])
    return Promise(f"{text} is flat", f"{early:.1f}, then {late:.1f} MB", kept=late <= early * GROWTH + NOISE_MB)


def _share(values: Sequence[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)]


def _tail(waits: Sequence[float]) -> str:
    shares = (0.5, 0.99, 0.999, 1)
    return "p50 {:.0f}, p99 {:.0f}, p99.9 {:.0f}, most {:.0f} ms".format(*(_share(waits, each) for each in shares))

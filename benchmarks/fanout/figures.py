"""What the measurements come to: pure, and in the units that the table shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Curve = list[float]
"""Milliseconds at the quantiles 0, 1 … 100 %."""

MILLISECOND = 1_000_000  # nanoseconds


@dataclass
class Round:
    """One contestant, once. Times are milliseconds unless their name says seconds."""

    connect_s: float = 0.0
    refused: int = 0
    spread: Curve = field(default_factory=list)
    """From an event's first receipt to each subscriber's; medians over the events."""
    since_sent: Curve = field(default_factory=list)
    """From an event's stamp, taken before it is appended or posted, to each subscriber's receipt."""
    bytes_each: float = 0.0
    server_ms: float = 0.0
    """The server's CPU time per event: says more than the spread where others use the core."""
    client_ms: float = 0.0
    """The load client's own CPU time per event: far below the spread, or the client is what was measured."""
    faults: int = 0
    """Receipts that are missing, double or out of order, and connections lost."""
    idle_percent: float | None = None
    herd: Herd | None = None


@dataclass
class Herd:
    """Everybody reconnects with one cursor while others listen live."""

    served_s: float
    """From the first SYN until the last had all that it missed."""
    unserved: int
    live_p50: float
    live_max: float
    """From the stamp of a live event to the last receipt among those who were connected all along: the worst."""
    live_events: int
    log_reads: int | None
    overflows: int
    """Connections that had to be tried again by TCP, because the server's backlog was full."""
    faults: int

    @classmethod
    def of(cls, served: dict[str, Any], heard: dict[str, Any], log_reads: int | None, overflows: int) -> Herd:
        """From the load client's reports on the herd and on those who listened meanwhile."""
        late = delays(heard["events"], 100)
        known = [report[kind] for report in (served, heard) for kind in ("duplicates", "disordered", "lost")]
        partly = sum(heard["connections"] - event["received"] for event in heard["events"] if event["received"])
        return cls(
            served_s=served["served"][-1] / 1000 / MILLISECOND if served["served"] else math.inf,
            unserved=served["connections"] - served["all"],
            live_p50=statistics.median(late) if late else math.inf,
            live_max=max(late, default=math.inf),
            live_events=len(late),
            log_reads=log_reads,
            overflows=overflows,
            faults=sum(known) + partly,
        )


def faults(report: dict[str, Any]) -> int:
    return int(report["missing"] + report["duplicates"] + report["disordered"] + report["lost"])


def spread(events: Iterable[dict[str, Any]]) -> Curve:
    """The median over events of each quantile; an event that nobody received has none."""
    return median_curve([[at / MILLISECOND for at in event["curve"]] for event in events if event["curve"]])


def since_sent(events: Iterable[dict[str, Any]]) -> Curve:
    """As `spread`, but from the event's stamp."""
    found = []
    for event in events:
        ahead = event["first"] - event["sent"]
        found.append([(ahead + at) / MILLISECOND for at in event["curve"]])
    return median_curve([curve for curve in found if curve])


def median_curve(curves: Sequence[Curve]) -> Curve:
    return [statistics.median(values) for values in zip(*curves, strict=True)] if curves else []


def delays(events: Iterable[dict[str, Any]], percent: int) -> list[float]:
    """Milliseconds from each event's stamp to its receipt by that share of the subscribers."""
    return [
        (event["first"] + event["curve"][percent] - event["sent"]) / MILLISECOND for event in events if event["curve"]
    ]


def median_of(values: Iterable[float | None]) -> float | None:
    """None where nothing was measured."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


@dataclass
class Summary:
    """The medians of one contestant's rounds; None: not measured."""

    name: str
    rounds: list[Round]

    @property
    def curve(self) -> Curve:
        """From an event's stamp."""
        return median_curve([each.since_sent for each in self.rounds if each.since_sent])

    def spread(self, percent: int) -> float | None:
        """From the first receipt to that share of the subscribers."""
        return median_of(each.spread[percent] if each.spread else None for each in self.rounds)

    def since_sent(self, percent: int) -> float | None:
        """From an event's stamp to that share of the subscribers; 0: to the first."""
        return median_of(each.since_sent[percent] if each.since_sent else None for each in self.rounds)

    def figure(self, name: str) -> float | None:
        """A field of Round by its name, or of its herd as `herd.name`."""
        if name.startswith("herd."):
            herds = [each.herd for each in self.rounds if each.herd]
            return median_of(getattr(herd, name.removeprefix("herd.")) for herd in herds)
        return median_of(getattr(each, name) for each in self.rounds)

    @property
    def faults(self) -> int:
        """Over all rounds: one is too many, so no median hides it."""
        herds = [each.herd for each in self.rounds if each.herd]
        return sum(each.faults + each.refused for each in self.rounds) + sum(h.faults + h.unserved for h in herds)


@dataclass(frozen=True)
class Goal:
    """One line of the issue's table of figures, judged; `met` is None where something is not measured."""

    what: str
    goal: str
    seen: str
    met: bool | None


def goals(found: dict[str, Summary]) -> list[Goal]:
    bridge = found.get("bridge")
    if bridge is None:
        return []
    p99, connect = bridge.spread(99), bridge.figure("connect_s")
    nchan, bare = found.get("nchan"), found.get("bare")
    nchan_p99, nchan_connect = (nchan.spread(99), nchan.figure("connect_s")) if nchan else (None, None)
    return [
        _ratio("first to last receipt, p99, to nchan's", p99, nchan_p99, 0.7),
        _ratio("first to last receipt, p99, to the bare loop's", p99, bare.spread(99) if bare else None, 1.3),
        _at_most("memory per subscriber", bridge.figure("bytes_each"), 6000, "kB", 1000),
        _ratio("connecting them all, to nchan's", connect, nchan_connect, 4),
        _at_most("append in Redis to first receipt, p50", bridge.since_sent(0), 2, "ms"),
        _at_most("reconnects with a cursor 100 events back, all served", bridge.figure("herd.served_s"), 6, "s"),
        _at_most("live events late by, meanwhile", bridge.figure("herd.live_max"), 250, "ms"),
        _at_most("idle with heartbeats", bridge.figure("idle_percent"), 3, "% of a core"),
    ]


def _ratio(what: str, value: float | None, other: float | None, most: float) -> Goal:
    if value is None or not other:
        return Goal(what, f"≤ {most:g} ×", "–", None)
    return Goal(what, f"≤ {most:g} ×", f"{value / other:.2f} ×", value / other <= most)


def _at_most(what: str, value: float | None, most: float, unit: str, scale: float = 1) -> Goal:
    goal = f"≤ {most / scale:g} {unit}"
    if value is None:
        return Goal(what, goal, "–", None)
    return Goal(what, goal, f"{value / scale:.2f} {unit}", value <= most)

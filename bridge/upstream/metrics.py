"""What `bridge upstream` counts."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from bridge.upstream.slots import Life, Slot

LEADER = Gauge("bridge_leader", "1 while this process leads", multiprocess_mode="livemax")
WATCHES = Gauge("bridge_watches", "CVMs that this leader follows", multiprocess_mode="livemax")
STALE = Gauge("bridge_watches_stale", "Watches that are stale", multiprocess_mode="livemax")
STREAMS = Gauge("bridge_upstream_streams", "Streams open at upstream", multiprocess_mode="livemax")
REACHABLE = Gauge(
    "bridge_upstream_reachable",
    "0 while this process leads and no request to upstream is answered",
    multiprocess_mode="livemax",
)
REACHABLE.set(1)
UNLISTED = Gauge(
    "bridge_upstream_unlisted", "CVMs that upstream counts and its list does not name", multiprocess_mode="livemax"
)
UNRESOLVED = Gauge(
    "bridge_references_unresolved", "References of BRIDGE_CVMS that name no known CVM", multiprocess_mode="livemax"
)
BUDGET = Gauge(
    "bridge_upstream_stream_budget", "Streams that the account seems to allow us now", multiprocess_mode="livemax"
)
SLOTS = Gauge("bridge_slots", "This leader's slots by state", ["state"], multiprocess_mode="livemax")
"""States as in docs/contract.md#http, and `opening`."""
REGISTERED = Gauge(
    "bridge_phala_webhook_registered",
    "1 while this process leads and Phala Cloud sends its webhooks to BRIDGE_PUBLIC_URL, as of the last look",
    multiprocess_mode="livemax",
)
EVENTS = Counter("bridge_events", "Events written to the log", ["type"])
LOST = Counter("bridge_log_events_lost", "Events that Redis lost after it had confirmed them")
"""They are written again, under new numbers, as far as this process remembers them."""
UNWRITTEN = Counter(
    "bridge_events_unwritten", "Events that were decided and never written: another process led meanwhile"
)
UNTOLD = Counter("bridge_webhook_notices_untold", "Endpoints that were disabled without an `endpoint.disabled`")
"""Too many notices waited for a leader."""
REQUESTS = Counter("bridge_upstream_requests", "Requests to upstream by route and outcome", ["route", "outcome"])
"""`route`: `state`, `stream`, `batch`, `list`, `webhooks`; `outcome`: `ok` or a `reason` of `errors.RULES`."""
LATE = Histogram(
    "bridge_upstream_late_seconds",
    "How late reads and batches were sent, by route; hints count from the hint",
    ["route"],
    buckets=(0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
BUDGET_SPENT = Counter(
    "bridge_upstream_budget_spent_seconds", "Seconds in which no further request might be sent to upstream"
)
STREAM_ENDS = Counter("bridge_upstream_stream_ends", "Streams by how they ended", ["how"])
"""Look here first when events come late."""
QUARANTINES = Counter("bridge_slot_quarantines", "Slots that wait because upstream may still hold a stream", ["cause"])

_STATES = {
    Life.FREE: SLOTS.labels("free"),
    Life.OPENING: SLOTS.labels("opening"),
    Life.OPEN: SLOTS.labels("held"),
    Life.CLOSING: SLOTS.labels("settling"),
    Life.QUARANTINED: SLOTS.labels("quarantined"),
}


def count_slots(slots: Iterable[Slot]) -> None:
    lives = [slot.life for slot in slots]
    for life, gauge in _STATES.items():
        gauge.set(lives.count(life))


def stand_by() -> None:
    """A process that does not lead follows nothing and has nothing to complain of."""
    count_slots(())
    for gauge in (LEADER, WATCHES, STALE, BUDGET, UNLISTED, UNRESOLVED, REGISTERED):
        gauge.set(0)
    REACHABLE.set(1)

"""What `bridge upstream` counts."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from bridge.upstream.slots import Life, Slot

LEADER = Gauge("bridge_leader", "1 while this process leads", multiprocess_mode="livemax")
EPOCH = Gauge("bridge_leader_epoch", "Number of the term that this process leads in, or 0", multiprocess_mode="livemax")
LEASE_RENEWED = Gauge(
    "bridge_lease_renewed_timestamp_seconds",
    "Unix time at which the leader asked for the lease that it has, or 0",
    multiprocess_mode="livemax",
)
WATCHES = Gauge("bridge_watches", "CVMs that this leader follows", multiprocess_mode="livemax")
FOLLOWED = Gauge("bridge_watches_followed", "Watches by how they are followed", ["by"], multiprocess_mode="livemax")
"""`by`: `stream` or `poll`, as `observedBy` of an event."""
STALE = Gauge("bridge_watches_stale", "Watches that are stale", multiprocess_mode="livemax")
OLDEST = Gauge(
    "bridge_oldest_confirmation_seconds",
    "Seconds since the state was confirmed whose confirmation is the oldest of all watches",
    multiprocess_mode="livemax",
)
CHANGE = Histogram(
    "bridge_change_to_event_seconds",
    "Seconds from the last look at a CVM before it changed to its event in the log: the most that the change can have "
    "waited, by what showed it",
    ["by"],
    buckets=(0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 60, 120, 300),
)
for _by in ("stream", "poll"):
    CHANGE.labels(_by)
LOG_LENGTH = Gauge("bridge_log_length_events", "Events that the log holds", multiprocess_mode="livemax")
LOG_SEQUENCE = Gauge("bridge_log_sequence", "Sequence of the last event in the log", multiprocess_mode="livemax")
TRIM_LAG = Gauge(
    "bridge_log_trim_lag_events",
    "Events that webhooks or a consumer group have not read, beyond BRIDGE_LOG_LENGTH of them: the log keeps these "
    "too, up to nine times that length",
    multiprocess_mode="livemax",
)
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
HELD_BACK = Gauge(
    "bridge_upstream_streams_held_back",
    "1 for the reason why fewer streams than slots may be open",
    ["reason"],
    multiprocess_mode="livemax",
)
"""`reason`: a key of `status.HELD_BACK`."""
KEY_REFUSED = Gauge("bridge_upstream_key_refused", "1 while upstream refuses the API key", multiprocess_mode="livemax")
SLOTS = Gauge("bridge_slots", "This leader's slots by state", ["state"], multiprocess_mode="livemax")
"""States as in docs/contract.md#http, and `opening`."""
REGISTERED = Gauge(
    "bridge_phala_webhook_registered",
    "1 while this process leads and Phala Cloud sends its webhooks to BRIDGE_PUBLIC_URL, as of the last look",
    multiprocess_mode="livemax",
)
PHALA_WEBHOOK_MISSING = Gauge(
    "bridge_phala_webhook_missing",
    "1 while this process leads, BRIDGE_PUBLIC_URL is set, and Phala Cloud does not send its webhooks there",
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
"""`route`: `state`, `stream`, `batch`, `list`, `details` or `webhooks`; `outcome`: `ok`, or a `reason` of
`errors.RULES`."""
REQUEST_SECONDS = Histogram(
    "bridge_upstream_request_seconds",
    "Seconds until upstream had answered a request, or had failed to; of a stream, until it was open",
    ["route"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
LATE = Histogram(
    "bridge_upstream_late_seconds",
    "Seconds that reads and batches were sent too late, by route; hints count from the hint",
    ["route"],
    buckets=(0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
BUDGET_SPENT = Counter(
    "bridge_upstream_budget_spent_seconds", "Seconds in which no further request might be sent to upstream"
)
STREAM_OPENS = Counter("bridge_upstream_stream_opens", "Streams that upstream opened")
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


def lead(epoch: int) -> None:
    """A term begins."""
    LEADER.set(1)
    EPOCH.set(epoch)


def hold_back(reason: str | None) -> None:
    """Shows why fewer streams may be open; None: nothing is in their way."""
    HELD_BACK.clear()
    if reason:
        HELD_BACK.labels(reason).set(1)


def count_log(length: int, sequence: int, trim_lag: int) -> None:
    LOG_LENGTH.set(length)
    LOG_SEQUENCE.set(sequence)
    TRIM_LAG.set(trim_lag)


def count_watches(stream: int, poll: int, stale: int, oldest: float) -> None:
    """How many are followed by what, how many are stale, and the age of the oldest confirmation in seconds."""
    FOLLOWED.labels("stream").set(stream)
    FOLLOWED.labels("poll").set(poll)
    STALE.set(stale)
    OLDEST.set(oldest)


def count_registration(works: bool) -> None:
    """Whether Phala Cloud sends its webhooks to BRIDGE_PUBLIC_URL, which is set."""
    REGISTERED.set(works)
    PHALA_WEBHOOK_MISSING.set(not works)


def stand_by() -> None:
    """A process that does not lead follows nothing and has nothing to complain of."""
    count_slots(())
    count_log(0, 0, 0)
    count_watches(0, 0, 0, 0.0)
    hold_back(None)
    for gauge in (LEADER, EPOCH, LEASE_RENEWED, WATCHES, BUDGET, KEY_REFUSED, UNLISTED, UNRESOLVED, REGISTERED):
        gauge.set(0)
    PHALA_WEBHOOK_MISSING.set(0)
    REACHABLE.set(1)

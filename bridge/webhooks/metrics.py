"""The metrics of `bridge dispatcher`."""

from __future__ import annotations

from typing import TypeVar, get_args

from prometheus_client import Counter, Gauge, Histogram

from bridge.webhooks.schedule import Why

M = TypeVar("M", Counter, Gauge)


def _begun(metric: M, *values: str) -> M:
    """With these values of its label at 0, so that Prometheus sees the first step too."""
    for value in values:
        metric.labels(value)
    return metric


QUEUED = Counter("bridge_webhook_queued", "Deliveries queued from the log")
SKIPPED = _begun(
    Counter("bridge_webhook_skipped", "Deliveries not queued or dropped", ["why"]),
    *("disabled", "too many pending", "no longer seen"),
)
ATTEMPTS = _begun(
    Counter("bridge_webhook_attempts", "Attempts by their result for the delivery", ["verdict"]),
    *("delivered", "failed", "given_up", "gone"),
)
NOT_ATTEMPTED = _begun(
    Counter("bridge_webhook_not_attempted", "Attempts that this machine could not make", ["why"]), *get_args(Why)
)
ATTEMPT_SECONDS = Histogram(
    "bridge_webhook_attempt_seconds",
    "Seconds that attempts took",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)
LOST_CLAIMS = Counter("bridge_webhook_lost_claims", "Attempts whose lane another dispatcher had before they ended")
BREAKERS = _begun(
    Counter("bridge_webhook_breakers", "Breakers of endpoints that opened, closed, or endpoints disabled", ["how"]),
    *("opened", "closed", "disabled"),
)
UNQUEUED = Counter("bridge_webhook_history_lost", "Times that the log was trimmed beyond what webhooks had read")
IN_FLIGHT = Gauge("bridge_webhook_in_flight", "Attempts that this process is making", multiprocess_mode="livemax")
BROKEN = Counter("bridge_webhook_broken_lanes", "Lanes and endpoints quarantined for damaged keys in Redis")
PENDING = Gauge("bridge_webhook_pending", "Deliveries waiting, at the last sweep", multiprocess_mode="livemax")
OLDEST_PENDING = Gauge(
    "bridge_webhook_oldest_pending_seconds",
    "Age in seconds of the delivery that waits longest, its retries included, at the last sweep",
    multiprocess_mode="livemax",
)
OPEN_BREAKERS = Gauge(
    "bridge_webhook_open_breakers",
    "Enabled endpoints that get only a probe now and then because they fail, at the last sweep",
    multiprocess_mode="livemax",
)
ENDPOINTS_FAILING = Gauge(
    "bridge_webhook_endpoints_failing",
    "Enabled endpoints whose attempts all fail and for which deliveries wait, at the last sweep",
    multiprocess_mode="livemax",
)
LOG_LAG = Gauge(
    "bridge_webhook_log_lag_seconds",
    "Age in seconds of the oldest event in the log that webhooks have not read, at the last sweep",
    multiprocess_mode="livemax",
)
OLDEST_DUE = Gauge(
    "bridge_webhook_oldest_due_seconds",
    "Seconds that the most overdue lane has waited to be claimed",
    multiprocess_mode="livemax",
)
"""Above some seconds there are too few dispatchers, or none makes progress."""
FORGOTTEN = Counter("bridge_webhook_forgotten_lanes", "Lanes that a sweep had to repair; any is a fault")
ENDPOINTS = _begun(
    Gauge(
        "bridge_webhook_endpoints",
        "Endpoints: enabled, disabled, or broken (not readable in Redis)",
        ["state"],
        multiprocess_mode="livemax",
    ),
    *("enabled", "disabled", "broken"),
)

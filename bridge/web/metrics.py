"""Metrics of `bridge web`."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

SUBSCRIBERS = Gauge("bridge_subscribers", "Open SSE subscriptions", multiprocess_mode="livesum")
SUBSCRIBERS_LIMIT = Gauge(
    "bridge_subscribers_limit",
    "SSE subscriptions that may be open: BRIDGE_MAX_SUBSCRIBERS, or fewer where open files are few",
    multiprocess_mode="livesum",
)
REPLAYING = Gauge(
    "bridge_subscribers_replaying", "Subscriptions that are not at the log's end yet", multiprocess_mode="livesum"
)
REPLAYS = Counter("bridge_replays", "Subscriptions that began with a look into Redis, for old events or snapshots")
LAG = Histogram(
    "bridge_feed_lag_seconds",
    "Seconds from the write of an event to the log until this front end hands it to its subscribers",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
LOOKUPS = Counter("bridge_lookups", "Questions to the leader about references, by what came of them", ["outcome"])
for _outcome in ("found", "refused", "unanswered"):
    LOOKUPS.labels(_outcome)
SENT = Counter("bridge_events_sent", "Events handed to subscribers")
SLOW = Counter("bridge_slow_subscribers", "Subscribers cut because they lagged beyond BRIDGE_SUBSCRIBER_BUFFER")
REQUESTS = Counter(
    "bridge_http_requests", "Answers to requests by route and status, but for streams", ["route", "status"]
)
REQUEST_SECONDS = Histogram(
    "bridge_http_request_seconds",
    "Seconds until a request was answered, by route, but for streams",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
OUT_OF_FILES = Counter("bridge_out_of_files", "Connections without a request that were ended for lack of open files")
RESETS = Counter("bridge_resets", "Times that a log was lost or born anew under the subscribers")
RESUBSCRIBES = Counter("bridge_feed_resubscribes", "Subscriptions to Redis made, the first included")
HEALED = Counter("bridge_feed_holes", "Holes in the feed that were read from the log")
WORKERS_REPLACED = Counter("bridge_workers_replaced", "Workers started in place of one that crashed or hung", ["cause"])
for _cause in ("crashed", "hung"):
    WORKERS_REPLACED.labels(_cause)
DISPATCHER_MISSING = Gauge(
    "bridge_webhook_dispatcher_missing",
    "1 while enabled webhook endpoints exist and no dispatcher is at work",
    multiprocess_mode="livemostrecent",
)
CERTIFICATE_BROKEN = Gauge(
    "bridge_certificate_broken",
    "1 while BRIDGE_TLS_CERT and BRIDGE_TLS_KEY cannot be used and the certificate of before counts",
    multiprocess_mode="livemax",
)
TOKENS_FILE_BROKEN = Gauge(
    "bridge_tokens_file_broken",
    "1 while BRIDGE_TOKENS_FILE cannot be used and the tokens that it had before count",
    multiprocess_mode="livemax",
)


@functools.cache
def position() -> Gauge:
    """Compare with the leader's: a front end that stays behind is deaf.

    Made at its first use: a worker that has no position yet must not be the least of all workers.
    """
    meaning = "Sequence of the last event that this front end has"
    return Gauge("bridge_position", meaning, multiprocess_mode="livemin")

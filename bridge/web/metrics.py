"""What `bridge web` counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SUBSCRIBERS = Gauge("bridge_subscribers", "Open SSE subscriptions")
SENT = Counter("bridge_events_sent", "Events handed to subscribers")
SLOW = Counter("bridge_slow_subscribers", "Subscribers cut because they lagged beyond BRIDGE_SUBSCRIBER_BUFFER")
RESETS = Counter("bridge_resets", "Times that a log was lost or born anew under the subscribers")
RESUBSCRIBES = Counter("bridge_feed_resubscribes", "Subscriptions to Redis made, the first included")
HEALED = Counter("bridge_feed_holes", "Holes in the feed that were read from the log")
POSITION = Gauge("bridge_position", "Sequence of the last event that this front end has")
"""Compare with the leader's: a front end that stays behind is deaf."""

"""What Prometheus scrapes: every metric of a process, and which version it runs."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from bridge import __version__

disable_created_metrics()  # type: ignore[no-untyped-call]  # a start is seen in process_start_time_seconds

Gauge(
    "bridge_build_info", "1; the label has the version that runs", ["version"], multiprocess_mode="livemostrecent"
).labels(__version__).set(1)


def exposition() -> bytes:
    """In Prometheus's text format. A worker answers for all workers: their values are in files of one directory."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together)

"""What each process counts of its commands to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from bridge.store.errors import StoreError, StoreUnavailableError

SECONDS = Histogram(
    "bridge_redis_command_seconds",
    "Seconds that a command to Redis took, with its wait for a connection",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
ERRORS = Counter("bridge_redis_errors", "Commands that Redis refused, or was too slow or unavailable for", ["error"])
for _error in ("refused", "unavailable"):
    ERRORS.labels(_error)


@contextmanager
def counted(now: Callable[[], float]) -> Iterator[None]:
    """One command. `now`: seconds."""
    begun_at = now()
    try:
        yield
    except StoreError as error:
        ERRORS.labels("unavailable" if isinstance(error, StoreUnavailableError) else "refused").inc()
        raise
    finally:
        SECONDS.observe(now() - begun_at)

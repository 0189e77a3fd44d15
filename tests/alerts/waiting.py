"""Waits for what other processes do, on a machine that a rehearsal keeps busy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import httpx
import redis

PATIENCE = 150.0
"""Seconds."""


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Returns once it holds; a connection that fails meanwhile counts as "not yet"."""
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(redis.RedisError, OSError, httpx.HTTPError):
            if holds():
                return
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.2)

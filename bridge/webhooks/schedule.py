"""What an attempt's outcome means for its delivery, and how long until the next one (contract section 8)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from bridge.store.lanes import Verdict

GONE = 410

HEEDED = (429, 503)
"""The statuses whose `Retry-After` counts."""

RETRY_AFTER_SPREAD = 0.1
"""Many lanes may be told the same moment: each waits up to this share longer, never shorter."""


class Outcome(Protocol):
    """What came of one HTTP request, as the transport tells it; `retry_after` is parsed and bounded there."""

    @property
    def status_code(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def retry_after(self) -> float | None: ...
    @property
    def response_body(self) -> str: ...
    @property
    def duration_ms(self) -> int: ...


class Schedule:
    """The waits of BRIDGE_WEBHOOK_RETRY, each with full jitter: anywhere between nothing and the whole of it."""

    def __init__(self, waits: Sequence[float], rng: random.Random) -> None:
        self._waits = tuple(waits)
        self._rng = rng

    def verdict(self, outcome: Outcome, failures: int, *, once: bool = False) -> tuple[Verdict, float]:
        """What to do, and the seconds to wait; `failures` came before this attempt. `once`: it is never retried."""
        code = outcome.status_code
        if outcome.error is None and code is not None and 200 <= code < 300:
            return "delivered", 0.0
        if code == GONE:
            return "gone", self._wait(outcome, failures)
        if once or failures >= len(self._waits):
            return "given_up", 0.0
        return "failed", self._wait(outcome, failures)

    def jitter(self) -> float:
        return self._rng.random()

    def _wait(self, outcome: Outcome, failures: int) -> float:
        planned = self._waits[min(failures, len(self._waits) - 1)]
        if outcome.retry_after is not None and outcome.status_code in HEEDED:
            return outcome.retry_after * (1 + RETRY_AFTER_SPREAD * self._rng.random())
        return planned * self._rng.random()

"""Decides from an attempt's outcome how its delivery goes on, and when (`docs/contract.md#webhooks`)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.store.lanes import Verdict

GONE = 410

JITTER = 0.2
"""A planned wait is up to this share shorter or longer, so that the whole schedule lasts about as long as planned."""

POSTPONED = 2.0
"""Seconds until an attempt that this machine could not make is due again, half as long or half as long again."""

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds; a `Retry-After` of more than a day counts as a day."""

RETRY_AFTER_SPREAD = 0.1
"""A receiver may name the same moment to many lanes: each that asked waits up to this share longer, never shorter."""


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The result of one attempt. `error` is a stable word, a colon and a sentence; None after a 2xx.

    `retry_after`: seconds that the receiver asked for without a 2xx, above 0 and at most a day. `response_body`: its
    first 4 KiB.
    """

    status_code: int | None = None
    error: str | None = None
    retry_after: float | None = None
    response_body: str = ""
    duration_ms: int = 0

    @property
    def ok(self) -> bool:
        return self.error is None


Why = Literal["connections", "resolver", "sealed", "stood_still"]
"""Why an attempt could not be made, for metrics."""


class NotAttemptedError(Exception):
    """This machine could not make an attempt, which is not the receiver's fault."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


InTime = Callable[[], bool]
"""Whether a request may still begin; otherwise another dispatcher may have made the attempt by now."""


def check_in_time(in_time: InTime) -> None:
    """Raises NotAttemptedError if it is not."""
    if not in_time():
        raise NotAttemptedError("stood_still", "this process stood still, and may have lost the delivery to another")


class Schedule:
    """The waits of BRIDGE_WEBHOOK_RETRY, each with its jitter."""

    def __init__(self, waits: Sequence[float], rng: random.Random) -> None:
        self._waits = tuple(waits)
        self._rng = rng

    def verdict(self, outcome: AttemptOutcome, failures: int, *, once: bool = False) -> tuple[Verdict, float]:
        """The verdict, and the seconds to wait; `failures` counts those before this attempt. `once`: never retried."""
        code = outcome.status_code
        if outcome.error is None and code is not None and 200 <= code < 300:
            return "delivered", 0.0
        if code == GONE:
            return "gone", self._wait(outcome, failures)
        if once or failures >= len(self._waits):
            return "given_up", 0.0
        return "failed", self._wait(outcome, failures)

    def postponed(self) -> float:
        return POSTPONED * (0.5 + self._rng.random())

    def jitter(self) -> float:
        return self._rng.random()

    def _wait(self, outcome: AttemptOutcome, failures: int) -> float:
        planned = self._waits[min(failures, len(self._waits) - 1)]
        if outcome.retry_after is not None:
            return min(outcome.retry_after * (1 + RETRY_AFTER_SPREAD * self._rng.random()), LONGEST_RETRY_AFTER)
        return planned * (1 - JITTER + 2 * JITTER * self._rng.random())

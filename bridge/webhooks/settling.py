"""Records results of attempts, many in one step: under load a script call per attempt would cost the most."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.clock import Clock
from bridge.store.errors import StoreError
from bridge.store.lanes import Lanes, Result, Settled
from bridge.webhooks import metrics

logger = logging.getLogger(__name__)

AT_ONCE = 200
"""Results per script: some 5 ms of the server."""

RETRY_EVERY = 0.2
"""Seconds between tries while Redis is away."""


class Settling:
    """One task runs it and owns the waiting results, at most as many as attempts may be in flight."""

    def __init__(self, lanes: Lanes, clock: Clock, settled: Callable[[], None]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._settled = settled
        self._waiting: list[Result] = []
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.troubled = False
        """A step failed, and the results that wait are not all recorded yet."""
        self.gather = 0.0
        """Seconds to wait for more results before a step; above 0 under load."""

    def add(self, result: Result) -> None:
        self._waiting.append(result)
        self._idle.clear()
        self._changed.set()

    async def all_recorded(self) -> None:
        """Returns once nothing waits."""
        await self._idle.wait()

    async def run(self) -> None:
        """Never returns. Repeats a step whose outcome is unknown; results that it had recorded then count as lost."""
        while True:
            await self._changed.wait()
            if self.gather and len(self._waiting) < AT_ONCE:
                await self._clock.sleep(self.gather)
            self._changed.clear()
            while self._waiting:
                await self._step()
            self._idle.set()

    async def _step(self) -> None:
        some = self._waiting[:AT_ONCE]
        try:
            codes = await self._lanes.settle(some)
        except StoreError as error:
            logger.warning("results of attempts wait for Redis", extra={"error": str(error), "results": len(some)})
            self.troubled = True
            await self._clock.sleep(RETRY_EVERY)
            return
        del self._waiting[: len(some)]
        for result, code in zip(some, codes, strict=True):
            _report(result, code)
        self.troubled = self.troubled and bool(self._waiting)
        self._settled()


def _report(result: Result, code: Settled) -> None:
    claim = result.claim
    if code == "lost":
        metrics.LOST_CLAIMS.inc()
        return
    if code == "broken":
        return  # the store reports each quarantine
    if result.verdict == "withheld":
        metrics.SKIPPED.labels("no longer seen").inc()
    elif result.verdict != "postponed":
        metrics.ATTEMPTS.labels(result.verdict).inc()
    about = {"endpoint": claim.endpoint_id, "delivery": claim.delivery_id}
    if code == "opened":
        logger.warning("endpoint fails; only probes are sent until one succeeds", extra=about)
    elif code == "closed":
        logger.info("endpoint works again", extra=about)
    elif code == "disabled":
        logger.error("endpoint disabled", extra={**about, "verdict": result.verdict})
    if code != "done":
        metrics.BREAKERS.labels(code).inc()

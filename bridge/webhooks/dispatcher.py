"""`bridge dispatcher`: fills lanes, borrows those that are due, attempts their heads and records the results.

Any number of replicas work without a coordinator. One that dies loses its leases, not its deliveries.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from bridge.clock import Clock, set_within
from bridge.cvm_scope import CvmIdentity
from bridge.events import DELETED
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints, EndpointSet
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.feed import subscription
from bridge.store.lanes import Claim, Lanes, Swept
from bridge.store.limits import LaneLimits
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watches
from bridge.webhooks import metrics
from bridge.webhooks.attempts import Attempts, Poster, Render, Sign
from bridge.webhooks.endpoint_cache import EndpointCache
from bridge.webhooks.enqueuer import Enqueuer
from bridge.webhooks.formats import render
from bridge.webhooks.schedule import Schedule
from bridge.webhooks.settling import Settling
from bridge.webhooks.signing import sign

logger = logging.getLogger(__name__)

LEASE = 5.0
"""Seconds; renewed while an attempt runs. A killed dispatcher's lanes stand still for at most this time."""

STALE = 0.8 * LEASE
"""Seconds after which a lease that was not renewed lets no request begin: the process stood still meanwhile, and soon
another dispatcher may deliver this event and later ones."""

MOST_IN_FLIGHT = 900
"""Attempts at once, each a socket and some 20 kB; fewer where the limit of open files is lower."""

SHARE = 64
"""An endpoint may have one in SHARE of the free attempts, at most ten and at least one. So it takes some 270 endpoints
that stop answering at the same moment to fill a dispatcher; with ten for each it would be ninety. 26 endpoints that are
always busy have their ten, a hundred have five each."""

CLAIM_AT_ONCE = 64
EXTEND_AT_ONCE = 200
SWEEP_AT_ONCE = 10
"""Lanes, leases and endpoints per script: a few milliseconds of the server each."""

SLOW_TICK = 1.0
"""Seconds after which the log and the lanes are read without a publication, since publications may be lost."""

SWEEP_EVERY = 15.0
RETRY_EVERY = 0.5
"""Seconds between tries while Redis is away."""

BUSY = 32
"""With more attempts in flight than this, results are gathered before they are recorded."""

GATHER = 0.003
"""Seconds for which results are gathered."""

ANNOUNCER = "webhooks"
"""One name for all dispatchers: they announce the same watches, and it counts once."""

LAST_RESULTS = 5.0
"""Seconds that the last results may take to reach Redis at a planned stop."""


@dataclass(eq=False)
class _Loan:
    """A claim whose attempt runs. Its lease began, or was renewed, at `since` (monotonic) or later."""

    claim: Claim
    since: float
    task: asyncio.Task[None] = field(init=False)


class Dispatcher:
    """One replica. `run` returns after `stop`, once the attempts in flight have ended and are recorded."""

    def __init__(
        self,
        backend: Backend,
        poster: Poster,
        *,
        unseal: Callable[[str], str],
        retry: Sequence[float],
        clock: Clock,
        render: Render = render,
        sign: Sign = sign,
        rng: random.Random | None = None,
        limits: LaneLimits | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        """`idle`: whether it shall claim nothing now, because it could attempt nothing."""
        self._backend = backend
        self._idle = idle
        self._most_in_flight = most_in_flight
        self._clock = clock
        self._lanes = Lanes(backend, limits, _report_quarantine)
        self._endpoint_cache = EndpointCache(Endpoints(backend, limits), unseal)
        self._enqueuer = Enqueuer(self._lanes, self._endpoint_cache, clock)
        rng = rng or random.Random()
        self._attempts = Attempts(
            endpoint_cache=self._endpoint_cache,
            poster=poster,
            render=render,
            sign=sign,
            schedule=Schedule(retry, rng),
            clock=clock,
            rng=rng,
        )
        self._news = asyncio.Event()
        self._work = asyncio.Event()
        self._stopping = False
        self._settling = Settling(self._lanes, clock, self._work.set)
        self._refused: dict[str, str] = {}  # by what waits: why Redis refuses it
        # The claiming task adds, an attempt that ends removes itself.
        self._in_flight: dict[tuple[str, str], _Loan] = {}

    @property
    def trouble(self) -> str:
        """What Redis refuses, and why: "" while all goes well, and while Redis is only unreachable."""
        return "; ".join(f"{what}: {why}" for what, why in self._refused.items())

    def _waits(self, what: str, error: StoreError) -> None:
        """Logs it. A refusal is a fault that an operator must see; that Redis is unreachable passes."""
        if isinstance(error, StoreUnavailableError):
            logger.info("a part of the dispatcher waits for Redis", extra={"part": what, "error": str(error)})
        elif self._refused.get(what) != str(error):
            self._refused[what] = str(error)
            logger.error("Redis refuses what the dispatcher needs", extra={"part": what, "error": str(error)})

    def _goes_on(self, what: str) -> None:
        if self._refused.pop(what, None) is not None:
            logger.info("a part of the dispatcher goes on", extra={"part": what})

    async def run(self, stop: asyncio.Event) -> None:
        """Waits while Redis is unreachable."""
        async with asyncio.TaskGroup() as group:
            intake = [
                group.create_task(self._listen(), name="webhook-news"),
                group.create_task(self._fill(), name="webhook-fill"),
                group.create_task(self._every(SWEEP_EVERY, self._sweep, "the sweep"), name="webhook-sweep"),
            ]
            claiming = group.create_task(self._claim(group), name="webhook-claim")
            keeping = [
                group.create_task(self._settling.run(), name="webhook-settle"),
                group.create_task(self._every(LEASE / 3, self._extend_all, "renewing leases"), name="webhook-extend"),
            ]
            await stop.wait()
            self._stopping = True
            self._work.set()
            await _end(intake)
            await asyncio.wait([claiming])  # not cancelled: lanes that it has just borrowed would lie idle for a lease
            await self._drain()
            await _end(keeping)

    async def _drain(self) -> None:
        """Each attempt has a deadline of its own."""
        while self._in_flight:
            await asyncio.wait([loan.task for loan in self._in_flight.values()])
        try:
            async with asyncio.timeout(LAST_RESULTS):
                await self._settling.all_recorded()
        except TimeoutError:
            logger.warning("the last attempts could not be recorded and will be made again")

    async def _listen(self) -> None:
        """Wakes the other tasks at publications; the slow tick makes up for those that are missed."""
        keys = self._backend.keys
        while True:
            try:
                async with aclosing(subscription(self._backend, keys.events, keys.webhook_wake_channel)) as messages:
                    async for channel, _ in messages:
                        self._news.set()
                        if channel == keys.webhook_wake_channel:
                            self._work.set()
            except StoreError as error:
                logger.info("the subscription to Redis broke and is made again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_EVERY)

    async def _fill(self) -> None:
        believed_since = self._clock.monotonic()
        while True:
            news = await set_within(self._news, SLOW_TICK)
            if self._clock.monotonic() - believed_since >= SLOW_TICK:
                self._enqueuer.doubt()
                believed_since = self._clock.monotonic()
            self._news.clear()
            try:
                news = await self._enqueuer.catch_up() or news
                self._goes_on("queuing")
            except StoreError as error:
                self._waits("queuing", error)
                self._enqueuer.doubt()
                self._news.set()
                await self._clock.sleep(RETRY_EVERY)
            if news:
                self._work.set()

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping:
            self._work.clear()
            free = self._most_in_flight - len(self._in_flight)
            wait = SLOW_TICK
            if free > 0:
                try:
                    wait = await self._borrow(group, free)
                    self._goes_on("claiming")
                except StoreError as error:
                    await self._recover(error)
                    wait = 0.0
            if wait > 0:
                await set_within(self._work, wait)

    async def _recover(self, error: StoreError) -> None:
        """After Redis was unreachable, renews the leases of the attempts in flight before anything else is borrowed."""
        self._waits("claiming", error)
        while True:
            await self._clock.sleep(RETRY_EVERY)
            try:
                await self._extend_all()
            except StoreError:
                if self._stopping:
                    return
                continue
            return

    async def _borrow(self, group: asyncio.TaskGroup, free: int) -> float:
        """Starts attempts; returns the seconds until there may be more to do."""
        if self._idle():
            return SLOW_TICK
        if self._settling.troubled:
            return SLOW_TICK  # results are recorded first, which wakes this; otherwise they would be attempted again
        borrowed_at = self._clock.monotonic()
        most, share = min(free, CLAIM_AT_ONCE), max(free // SHARE, 1)
        found = await self._lanes.claim(uuid.uuid4().hex, LEASE, most, share)
        await self._endpoint_cache.at(found.revision)
        for claim in found.claims:
            self._start(group, claim, borrowed_at)
        metrics.IN_FLIGHT.set(len(self._in_flight))
        self._settling.gather = GATHER if len(self._in_flight) > BUSY else 0.0
        if found.wait is None:
            return SLOW_TICK
        if found.wait == 0 and not found.claims:
            return 0.005  # the lanes that were due no longer are; do not spin
        return min(found.wait, SLOW_TICK)

    def _start(self, group: asyncio.TaskGroup, claim: Claim, borrowed_at: float) -> None:
        key, loan = (claim.endpoint_id, claim.lane), _Loan(claim, borrowed_at)
        before = self._in_flight.get(key)
        if before is not None:
            before.task.cancel()  # its lease ran out: its result would not count
        loan.task = group.create_task(self._attempt(loan), name="webhook-attempt")
        self._in_flight[key] = loan
        loan.task.add_done_callback(lambda _: self._ended(key, loan))  # also if it never began

    async def _attempt(self, loan: _Loan) -> None:
        result = await self._attempts.make(loan.claim, lambda: self._clock.monotonic() - loan.since < STALE)
        if result is not None:
            self._settling.add(result)

    def _ended(self, key: tuple[str, str], loan: _Loan) -> None:
        if self._in_flight.get(key) is loan:
            if len(self._in_flight) == self._most_in_flight:
                self._work.set()
            del self._in_flight[key]

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]], what: str) -> None:
        while True:
            await self._clock.sleep(seconds)
            try:
                await step()
                self._goes_on(what)
            except StoreError as error:
                self._waits(what, error)

    async def _extend_all(self) -> None:
        loans = list(self._in_flight.values())
        for start in range(0, len(loans), EXTEND_AT_ONCE):
            some, now = loans[start : start + EXTEND_AT_ONCE], self._clock.monotonic()
            renewed = await self._lanes.extend([loan.claim for loan in some], LEASE)
            for loan, kept in zip(some, renewed, strict=True):
                if kept:
                    loan.since = now
                elif not loan.task.done():
                    metrics.LOST_CLAIMS.inc()
                    loan.task.cancel()

    async def _sweep(self) -> None:
        ids, swept = list(self._endpoint_cache.endpoint_set.endpoints), Swept()
        for start in range(0, len(ids), SWEEP_AT_ONCE):
            some = await self._lanes.sweep(ids[start : start + SWEEP_AT_ONCE])
            swept += some
            if some.repaired:
                metrics.FORGOTTEN.inc(some.repaired)
                logger.error("a sweep repaired lanes that had been forgotten", extra={"lanes": some.repaired})
        metrics.PENDING.set(swept.pending)
        metrics.OLDEST_PENDING.set(swept.oldest)
        metrics.OPEN_BREAKERS.set(swept.open_breakers)
        metrics.ENDPOINTS_FAILING.set(swept.failing)
        with suppress(StoreError):  # queuing reports it
            metrics.LOG_LAG.set(await self._lanes.log_lag())
        metrics.OLDEST_DUE.set(await self._lanes.lateness())
        await announce_named_cvms(self._backend, self._endpoint_cache.endpoint_set, 3 * SWEEP_EVERY)
        self._work.set()


def _report_quarantine(endpoint_id: str, lane: str, why: str) -> None:
    metrics.BROKEN.inc()
    where = {"endpoint": endpoint_id, "lane": lane, "error": why}
    logger.error("quarantined: keys in Redis hold values that the bridge never wrote", extra=where)


async def announce_named_cvms(backend: Backend, endpoint_set: EndpointSet, seconds: float) -> None:
    """Announces the CVMs that enabled endpoints name to the leader for `seconds`, as front ends do for their
    subscribers.

    Leaves out CVMs that upstream reported as deleted. Raises StoreError.
    """
    enabled = [endpoint for endpoint in endpoint_set.endpoints.values() if endpoint.enabled]
    asked = [(each, reference) for each in enabled for reference in each.demands]
    cvm_ids = {reference.text for _, reference in asked if not reference.is_set}
    known = await Snapshots(backend).get(list(cvm_ids))
    counts = Counter(
        reference.text
        for each, reference in asked
        if reference.is_set or _may_ask(each, reference.text, known.get(reference.text))
    )
    watches = Watches(backend)
    if wanted := counts.keys() & cvm_ids:
        # Demand keeps those that there are: their times need not be written again and again.
        await watches.renew(wanted - await watches.existing(list(wanted)))
    await watches.announce(ANNOUNCER, counts, seconds)


def _may_ask(endpoint: Endpoint, cvm_id: str, known: Snapshot | None) -> bool:
    gone = known is not None and known.status == DELETED and known.raw_state is None
    return not gone and endpoint.reaches(known or CvmIdentity(cvm_id))


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels the tasks until they have ended, because a Redis client may swallow a cancellation."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)

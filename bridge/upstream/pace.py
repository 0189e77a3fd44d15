"""How often CVMs are looked at, and how long one may go without: a pure account of who is vouched for by batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.upstream.budget import REQUESTS_PER_SECOND
from bridge.upstream.tracked import NEVER, Tracked

READS_PER_SECOND = REQUESTS_PER_SECOND / 2
"""Reads of CVMs that no batch vouches for, all together: half of what the account is asked for at first. More of them
than fit into the poll interval are read less often."""

SWEEP_EVERY = 30.0
SWEEPS_PER_SECOND = 0.5
GONE_EVERY = 60.0
"""Seconds between reads of a deleted CVM, which may come back."""

SLOW_ANSWER = 2.0

STALE_AFTER_AT_LEAST = 10.0
STALE_INTERVALS = 3.0


@dataclass(slots=True)
class Turns:
    """Spreads the reads of a round evenly over it. The reads before may have been close together: a new leader reads
    all CVMs at once.
    """

    latest: float = NEVER
    """The latest turn given so far, monotonic."""

    def next(self, now: float, due: float, count: int, whole: float) -> float:
        """When to read again one of `count` CVMs that was `due` and just read: a tenth of a round to a whole one later.

        Counted from when it was due, so that a round stays as long as it should be however late each read is.
        """
        kept = due if now - whole < due <= now else now
        self.latest = min(kept + whole, max(self.latest + whole / max(1, count), now + whole / 10))
        return self.latest


@dataclass(slots=True)
class Pace:
    """Who is read when, and when a CVM is stale. `observe` runs before each plan; times are monotonic seconds.

    A CVM that the last batch vouched for is read in a slow sweep, every other one as if there were no batch route.
    """

    poll_interval: float
    stream_interval: float
    reads_per_second: float = READS_PER_SECOND
    unvouched: int = 0
    polled: int = 0
    longest: float = 0.0
    """How long a CVM that is not vouched for may go without a look. It shrinks no faster than time passes: when batches
    vouch again for most of many, the others wait for the turns that they had."""
    observed_at: float = NEVER
    polls: Turns = field(default_factory=Turns)
    sweeps: Turns = field(default_factory=Turns)

    @property
    def slow(self) -> float:
        """Seconds after which a batch that was not answered vouches for nobody; an answer may take ten."""
        return min(SLOW_ANSWER, self.poll_interval)

    @property
    def interval(self) -> float:
        """Seconds between two reads of a CVM that no batch vouches for."""
        return max(self.poll_interval, self.unvouched / self.reads_per_second)

    def observe(self, now: float, watches: Iterable[Tracked]) -> None:
        """Counts, and stops trusting batches that take too long."""
        polled = [each for each in watches if not each.stream.is_open and not each.gone]
        vouched, slow = [each for each in polled if each.batch.vouches], now - self.slow
        self.polled, self.unvouched = len(polled), len(polled) - len(vouched)
        self.distrust(now, (each for each in vouched if each.batch.running and each.batch.asked_at < slow))
        self.longest = max(STALE_INTERVALS * self.interval, self.longest - (now - self.observed_at))
        self.observed_at = now

    def distrust(self, now: float, unanswered: Iterable[Tracked]) -> None:
        """No batch vouches for these any more: each is read in its turn, as without a batch route."""
        present = [each for each in unanswered if each.batch.vouches]
        self.unvouched += len(present)
        for tracked in present:
            tracked.batch.vouches = False
            # Counted from the last look, as far as that is not too long ago.
            looked_at = max(tracked.seen.confirmed_at, now - 0.9 * self.interval)
            tracked.reads.bring_forward(self.polls.next(now, looked_at, self.unvouched, self.interval))

    def trust(self, now: float, tracked: Tracked) -> None:
        """A batch vouches for it. A read that failed is made again all the same."""
        trusted, tracked.batch.vouches = tracked.batch.vouches, True
        if not trusted and tracked.seen.failure is None:
            tracked.reads.due = self.next_read(now, tracked)

    def next_read(self, now: float, tracked: Tracked) -> float:
        """When a CVM that was just read, or vouched for, is read again."""
        if tracked.gone:
            return now + GONE_EVERY
        if tracked.stream.is_open:
            return now + self.stream_interval  # only where something asks for it
        due = tracked.reads.due
        if not tracked.batch.vouches:
            return self.polls.next(now, due, self.unvouched, self.interval)
        sweep = max(SWEEP_EVERY, self.polled / SWEEPS_PER_SECOND, self.poll_interval)
        return self.sweeps.next(now, due, self.polled, sweep)

    @property
    def silence(self) -> float:
        """Seconds after which a batch route counts as one that tells nothing of operations (docs/contract.md#ready)."""
        return max(STALE_AFTER_AT_LEAST, STALE_INTERVALS * self.poll_interval)

    def patience(self, tracked: Tracked) -> float:
        """Seconds without confirmation after which a watch is stale (docs/contract.md#the-event)."""
        if tracked.gone:
            interval = GONE_EVERY
        elif tracked.stream.is_open:
            interval = self.stream_interval
        elif not tracked.batch.vouches:
            return max(STALE_AFTER_AT_LEAST, self.longest)
        else:
            interval = self.poll_interval
        return max(STALE_AFTER_AT_LEAST, STALE_INTERVALS * interval)

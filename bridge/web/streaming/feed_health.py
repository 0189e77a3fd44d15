"""What a front end can tell about its feed: whether Redis answers, publications arrive, and a leader leads.

No I/O: the feed consumer reports what happens, and asks. Times are monotonic seconds.
"""

from __future__ import annotations

from bridge.store.leadership import Lease

NEVER = float("-inf")

DEAF_AFTER_PERIODS = 3
"""Periods of the leader without a tick after which the subscription is replaced."""

OVERDUE_AFTER_PERIODS = 1.5
"""The same, after which Redis is asked whether the lease is kept: the tick may have been lost."""

LOOK_EVERY = 1.0
"""Seconds without an event or a tick after which the log is read: an event whose publication is lost is late by so
much."""


class FeedHealth:
    """Owned by the feed consumer."""

    def __init__(self, period: float) -> None:
        """`period`: seconds between ticks, until the first tick tells it."""
        self.period = period
        self.heard_at = NEVER
        """When the subscription was confirmed, or its last message came."""
        self.readable = False
        """Whether Redis answered the last command of the feed consumer."""
        self.led_until = NEVER
        """How long the leader's last tick counts, or its lease lasts."""
        self._stands = False
        self._confirmed = False
        self._missed_at: float | None = None
        self._asked_at = self._told_at = self._looked_at = self._ticked_at = NEVER
        self._lease: Lease | None = None

    # What happens

    def subscribe(self, now: float) -> None:
        """A subscription is asked for. The one before is taken to stand until this one fails."""
        self._asked_at, self._confirmed = now, False

    def confirm(self, now: float) -> None:
        """It is made, and the log was read since. Whether it brings anything is not known yet."""
        self.heard_at = self._told_at = now
        self.readable = self._stands = self._confirmed = True

    def hear(self, now: float, *, tells_end: bool) -> None:
        """A message came; `tells_end`: an event or a tick, which shows whether an earlier event is missing."""
        self.heard_at, self._missed_at = now, None
        self._stands = self._confirmed = True
        if tells_end:
            self._told_at = now

    def tick(self, now: float, period: float) -> None:
        self.period, self._ticked_at = period, now
        self.led_until = now + DEAF_AFTER_PERIODS * period

    def give_up(self) -> None:
        """No tick came for so long that the subscription is replaced."""
        self._stands = self._stands and self._confirmed

    def break_off(self) -> None:
        """The subscription broke, or was refused."""
        self._stands = False

    def look(self, now: float) -> None:
        """Redis is asked for what was missed."""
        self._looked_at = now

    def answer(self, now: float, *, heard_at: float, news: bool) -> None:
        """Redis answered. `news`: of something that a subscription tells, too; `heard_at`: as it was before."""
        self.readable = True
        if news and self._stands and self.heard_at == heard_at and self._missed_at is None:
            self._missed_at = now

    def fail(self) -> None:
        """Redis did not answer, or refused."""
        self.readable = False

    def lease(self, now: float, lease: Lease | None, remaining: float) -> bool:
        """Redis has this lease, which lasts `remaining` more seconds, as far as this machine's clock can be trusted.

        True: it was renewed since the last call.
        """
        before, self._lease = self._lease, lease
        if lease is None or remaining <= 0:
            return False
        self.led_until = max(self.led_until, now + min(remaining, DEAF_AFTER_PERIODS * self.period))
        return before is not None and before.epoch == lease.epoch and before.until != lease.until

    # What follows from it

    @property
    def look_at(self) -> float:
        """When Redis is to be asked unless an event or a tick comes before; at the start at once."""
        return max(self._told_at, self._looked_at) + LOOK_EVERY if self._looked_at > NEVER else NEVER

    @property
    def deaf_at(self) -> float:
        """When the subscription is to be replaced unless a tick comes before."""
        return max(self._ticked_at, self._asked_at) + DEAF_AFTER_PERIODS * self.period

    def is_tick_overdue(self, now: float) -> bool:
        return now > self._ticked_at + OVERDUE_AFTER_PERIODS * self.period

    def arrives(self, now: float) -> bool:
        """Whether publications arrive here, as far as can be told.

        A message may come right after the answer that told its news; one that is missing a second later is lost.
        """
        return self._stands and (self._missed_at is None or now < self._missed_at + LOOK_EVERY)

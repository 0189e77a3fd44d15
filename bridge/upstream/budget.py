"""What the account allows now: how many streams, how many requests, or nothing at all. Pure; times are monotonic."""

from __future__ import annotations

import random
from dataclasses import KW_ONLY, dataclass, field

from bridge.upstream.backoff import Backoff
from bridge.upstream.errors import RULES, AccountEffect, RateLimitedError, UnauthorizedError, UpstreamError

REQUESTS_PER_SECOND = 20.0
SHRUNK_FOR = 60.0
"""Seconds until one more stream is tried after upstream said that the account has enough."""

FEWEST_REQUESTS = 0.5

SHORTEST_PAUSE = 1.0
"""Seconds without a request after a 429, also where upstream says 0: so long may the refusals of one burst come."""

PROBE_EVERY = 15.0
"""Seconds between two questions to an account that refuses the key: longer than an answer may take."""


@dataclass(slots=True)
class Budget:
    """Shrinks on 429, is tried again later; blocked on 401 until a probe succeeds."""

    most_streams: int
    _: KW_ONLY
    streams: int = -1
    streams_reason: str | None = None
    grow_at: float = float("inf")
    rate: float = REQUESTS_PER_SECOND
    tokens: float = REQUESTS_PER_SECOND
    refilled_at: float = 0.0
    paused_until: float = float("-inf")
    restore_at: float = float("inf")
    blocked: Backoff = field(default_factory=Backoff)
    forbidden: set[str] = field(default_factory=set)
    probed_at: float = float("-inf")

    def __post_init__(self) -> None:
        if self.streams < 0:
            self.streams = self.most_streams

    def apply(
        self,
        error: UpstreamError,
        now: float,
        rng: random.Random,
        subject: str,
        *,
        ours: bool = True,
        other_streams: int | None = None,
    ) -> None:
        """Does what the table of `errors.py` demands of the account.

        `subject`: what was asked for. `ours`: it is watched or configured; a 403 for anything else tells nothing about
        the account. `other_streams`: a stream was asked for, and so many others of ours are open or being opened.
        """
        effect = error.rule.account
        if effect is AccountEffect.ACCEPTED:
            self.authorized()
        elif effect is AccountEffect.BLOCK or (effect is AccountEffect.SUSPECT and ours):
            self.unauthorized(now, rng, subject, at_once=effect is AccountEffect.BLOCK)
        elif effect is AccountEffect.SLOW_DOWN and other_streams is not None:
            self.too_many_streams(now, other_streams, error.retry_after)
        elif effect is AccountEffect.SLOW_DOWN:
            self.too_many_requests(now, error.retry_after)

    def refill(self, now: float) -> int:
        """Whole requests that may be sent now."""
        if now >= self.restore_at:
            self.rate, self.restore_at = REQUESTS_PER_SECOND, float("inf")
        if now >= self.grow_at:
            self._grow(now)
        # At least one whole request must fit, or a slow rate would mean none at all.
        self.tokens = min(max(self.rate, 1.0), self.tokens + (now - self.refilled_at) * self.rate)
        self.refilled_at = now
        return int(self.tokens) if now >= self.paused_until else 0

    def spend(self, count: int) -> None:
        self.tokens -= count

    def too_many_streams(self, now: float, open_now: int, retry_after: float | None) -> None:
        """429 on opening: somebody else uses the account too, `open_now` streams of ours are what it allows."""
        self.streams = min(self.streams, max(0, open_now))
        self.streams_reason = "rate_limited"
        self.grow_at = now + max(SHRUNK_FOR, retry_after or 0.0)

    def _grow(self, now: float) -> None:
        self.streams = min(self.streams + 1, self.most_streams)
        full = self.streams == self.most_streams
        self.grow_at = float("inf") if full else now + SHRUNK_FOR
        self.streams_reason = None if full else self.streams_reason

    def too_many_requests(self, now: float, retry_after: float | None) -> None:
        """429 on a plain request: pause, then go on at half the pace for a while.

        Answers that were under way when the pause began are the same refusal, not further ones.
        """
        if now >= self.paused_until:
            self.rate = max(self.rate / 2, FEWEST_REQUESTS)
        pause = max(SHORTEST_PAUSE, retry_after if retry_after is not None else 2.0)
        self.paused_until = max(self.paused_until, now + pause)
        self.restore_at = max(now, self.paused_until) + SHRUNK_FOR

    def unauthorized(self, now: float, rng: random.Random, subject: str, *, at_once: bool) -> None:
        """Blocks the account, at once or when three subjects in a row were forbidden.

        Answers that were under way when the block began are the same refusal, not further ones.
        """
        self.forbidden.add(subject)
        if now < self.blocked.until:
            return
        if at_once or len(self.forbidden) >= 3:
            self.blocked.fail(now, rng, at_least=5.0)

    def authorized(self) -> None:
        self.forbidden.clear()
        self.blocked.heal()

    def probe(self, now: float) -> bool:
        """Whether a blocked account may be asked one question now; none more until that is answered or given up."""
        if now < max(self.blocked.until, self.probed_at + PROBE_EVERY):
            return False
        self.probed_at = now
        return True

    def trouble(self, now: float) -> str | None:
        """Why nobody is asked at all just now, in the words of `watch.stale`."""
        if self.is_blocked:
            return RULES[UnauthorizedError].reason
        return RULES[RateLimitedError].reason if now < self.paused_until else None

    @property
    def is_blocked(self) -> bool:
        return self.blocked.failures > 0

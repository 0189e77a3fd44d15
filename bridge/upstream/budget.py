"""What the account and upstream allow now: streams and requests, or a probe now and then. Pure; times are monotonic.

Requests begin at a pace that an account bears for ever. While more are wanted, upstream answers quickly and refuses
none, the pace grows by one a second each second; a refusal halves it.
"""

from __future__ import annotations

import random
from dataclasses import KW_ONLY, dataclass, field

from bridge.backoff import Backoff
from bridge.config_values import DEFAULT_PACE
from bridge.upstream.breaker import Breaker
from bridge.upstream.errors import RULES, RateLimitedError, UnauthorizedError, UnreachableError

REQUESTS_PER_SECOND, MOST_REQUESTS_PER_SECOND = DEFAULT_PACE
GROWS_EVERY = 1.0
"""Seconds until one request a second more is allowed."""

QUICK_ANSWER = 1.0
STRAINED_FOR = 10.0
"""Seconds without growth after an answer that was not quick, or an error of upstream's."""

SHRUNK_FOR = 60.0
"""Seconds until one more stream is tried after upstream refused one."""

NOTICE_GRACE = 1.0
"""Seconds beyond one stream interval in which upstream notices that a stream was closed: it writes once an interval."""

FEWEST_REQUESTS = 0.5

SHORTEST_PAUSE = 1.0
"""Seconds without a request after a 429, also with `Retry-After: 0`: further refusals of the same burst may follow."""

PROBE_EVERY = 15.0
"""Seconds between two requests while upstream refuses the key: longer than an answer may take."""


@dataclass(slots=True)
class Budget:
    """Shrinks on 429 and grows again later; held on 401 and while upstream is down, until a probe succeeds."""

    most_streams: int
    _: KW_ONLY
    streams: int = -1
    streams_reason: str | None = None
    grow_at: float = float("inf")
    notice: float = 5.0 + NOTICE_GRACE
    """Seconds for which upstream may count a stream that was closed."""
    closed_at: float = float("-inf")
    """When a stream of ours was closed that explains no refusal yet; of a new term, until when the one before may have
    closed its own."""
    unnoticed_until: float = float("-inf")
    unnoticed_streams: int = 0
    """How many streams there may be until then."""
    pace: float = REQUESTS_PER_SECOND
    """Requests a second to begin with, and at most `most_pace`; `rate` is what is allowed now."""
    most_pace: float = MOST_REQUESTS_PER_SECOND
    rate: float = -1.0
    tokens: float = -1.0
    refilled_at: float = 0.0
    paused_until: float = float("-inf")
    restore_at: float = float("inf")
    absent_streams: Backoff = field(default_factory=Backoff)
    """Grows while streams are answered 404 and reads are not."""
    blocked: Backoff = field(default_factory=Backoff)
    forbidden: set[str] = field(default_factory=set)
    probed_at: float = float("-inf")
    breaker: Breaker = field(default_factory=Breaker)
    waiting: int = 0
    """Look-ups, lists and the like that wait for their turn (`LeaderContext.turn`)."""
    _short: bool = False
    """Whether requests wanted to be sent in the present second that the pace did not allow."""
    _short_at: float = float("-inf")
    _adapted_at: float = float("-inf")
    _strained_until: float = float("-inf")
    _odd: bool = False
    _taken: bool = False
    """Whether one of those who wait took a request since the plan was offered one in advance."""

    def __post_init__(self) -> None:
        if self.streams < 0:
            self.streams = self.most_streams
        if self.rate < 0:
            self.rate = self.pace
        if self.tokens < 0:
            self.tokens = self.pace

    def refill(self, now: float) -> int:
        """Whole requests that may be sent now."""
        if now >= self.restore_at:
            self.rate, self.restore_at = max(self.rate, self.pace), float("inf")
        self._adapt(now)
        if now >= self.grow_at:
            self._grow(now)
        # At least one whole request must fit: a rate below 1 would otherwise never allow any. A pace that has grown
        # allows no larger burst.
        self.tokens = min(max(min(self.rate, self.pace), 1.0), self.tokens + (now - self.refilled_at) * self.rate)
        self.refilled_at = now
        return max(0, int(self.tokens)) if now >= self.paused_until else 0

    def _adapt(self, now: float) -> None:
        """Grows where all that was allowed is sent; a minute in which less was wanted ends that, and so does whatever
        holds the budget: an upstream that comes back is asked as at first.
        """
        if now < self._adapted_at + GROWS_EVERY:
            return
        if self.is_held:
            self.rate = min(self.rate, self.pace)
        elif self._short:
            self._short_at = now
            if self.restore_at == float("inf") and now >= self._strained_until:
                self.rate = min(self.rate + 1, max(self.most_pace, self.rate))
        elif now >= self._short_at + SHRUNK_FOR:
            self.rate = min(self.rate, self.pace)
        self._adapted_at, self._short = now, False

    def run_short(self) -> None:
        """More requests are to be sent than may be."""
        self._short = True

    def strained(self, now: float) -> None:
        """Upstream answered late, or with an error: the pace does not grow for a while."""
        self._strained_until = now + STRAINED_FOR

    def refill_for_plan(self, now: float) -> int:
        """Whole requests that a plan may send now: half of them while others wait for their turn.

        Those who wait take each request as soon as it may be sent. The plan may then have one in advance for each that
        was taken, which those who wait are left to make up for.
        """
        free = self.refill(now)
        if not self.waiting:
            return free
        if not free:
            advance = self._taken and self.tokens >= 0 and now >= self.paused_until
            self._taken = self._taken and not advance
            return int(advance)
        self._odd = not self._odd  # of single requests, every second one
        return (free + self._odd) // 2

    def take(self, now: float) -> bool:
        """Takes one request. While the budget is held, only as its probe."""
        if self.refill(now) < 1:
            self.run_short()
            return False
        if self.is_held and not self.probe(now):
            return False
        self.spend(1)
        self._taken = True
        return True

    def spend(self, count: int) -> None:
        self.tokens -= count

    def too_many_streams(self, now: float, open_now: int, retry_after: float | None) -> None:
        """429 on opening: for now the account allows us no more than the `open_now` that we have.

        If one of ours was closed lately, upstream may not have noticed: the same is tried once more soon. If that is
        refused too, or none was closed, the account is used elsewhere, and one more is tried after a minute. Each
        closed stream explains one burst of refusals.
        """
        open_now = max(0, open_now)
        if self.is_unnoticed(now):
            self.unnoticed_streams = min(self.unnoticed_streams, open_now)
        elif now < self.closed_at + 2 * self.notice:
            self.unnoticed_streams, self.closed_at = open_now, float("-inf")
            self.unnoticed_until = now + max(self.notice, retry_after or 0.0)
        else:
            self.streams = min(self.streams, open_now)
            self.streams_reason = "rate_limited"
            self.grow_at = now + max(SHRUNK_FOR, retry_after or 0.0)

    def is_unnoticed(self, now: float) -> bool:
        """Whether upstream refused a stream, and may not have noticed yet that one of ours was closed."""
        return now < self.unnoticed_until

    def allowed(self, now: float) -> int:
        """How many streams the account allows us, as far as upstream's refusals tell."""
        return min(self.streams, self.unnoticed_streams) if self.is_unnoticed(now) else self.streams

    def _grow(self, now: float) -> None:
        self.streams = min(self.streams + 1, self.most_streams)
        full = self.streams == self.most_streams
        self.grow_at = float("inf") if full else now + SHRUNK_FOR
        self.streams_reason = None if full else self.streams_reason

    def no_such_stream(self, now: float, rng: random.Random) -> bool:
        """404 to a stream of a CVM that exists: none is opened for a while. True when it happened thrice in a row."""
        self.absent_streams.fail(now, rng)
        return self.absent_streams.failures == 3

    def stream_opened(self) -> None:
        self.absent_streams.heal()

    def stream_closed(self, now: float) -> None:
        """One of ours was open and has ended; upstream may notice that late."""
        self.closed_at = now

    def streams_now(self, now: float) -> int:
        """How many streams there may be; those that are open stay."""
        return 0 if self.is_held or now < max(self.absent_streams.until, self.paused_until) else self.allowed(now)

    def too_many_requests(self, now: float, retry_after: float | None) -> None:
        """429 on a plain request: pause, then go on at half the pace for a while.

        Refusals that arrive during the pause do not halve the pace again.
        """
        if now >= self.paused_until:
            self.rate = max(self.rate / 2, FEWEST_REQUESTS)
        pause = max(SHORTEST_PAUSE, retry_after if retry_after is not None else 2.0)
        self.paused_until = max(self.paused_until, now + pause)
        self.restore_at = max(now, self.paused_until) + SHRUNK_FOR

    def unauthorized(self, now: float, rng: random.Random, subject: str, *, at_once: bool) -> None:
        """Blocks the account, at once or when three subjects in a row were forbidden.

        Refusals that arrive while it is blocked do not prolong the block.
        """
        self.forbidden.add(subject)
        if now < self.blocked.until:
            return
        if at_once or len(self.forbidden) >= 3:
            self.blocked.fail(now, rng, at_least=5.0)

    def authorized(self) -> None:
        self.forbidden.clear()
        self.blocked.heal()
        self.breaker.answered()

    def probe(self, now: float) -> bool:
        """Whether one request may be sent on a held budget now; the next one is allowed `PROBE_EVERY` later."""
        if not self.is_blocked:
            return self.breaker.probe(now)
        if now < max(self.blocked.until, self.probed_at + PROBE_EVERY):
            return False
        self.probed_at = now
        return True

    def stale_reason(self, now: float) -> str | None:
        """Why no request is sent at all now, as a `reason` of `watch.stale`; None where requests are sent."""
        if self.is_blocked:
            return RULES[UnauthorizedError].reason
        if self.breaker.is_open:
            return RULES[UnreachableError].reason
        return RULES[RateLimitedError].reason if now < self.paused_until else None

    @property
    def is_blocked(self) -> bool:
        return self.blocked.failures > 0

    @property
    def is_held(self) -> bool:
        """Whether nothing but a probe may be sent: the account is blocked, or upstream is down."""
        return self.is_blocked or self.breaker.is_open

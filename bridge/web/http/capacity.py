"""How many streams may be open here, in all and for each token."""

from __future__ import annotations

from collections import Counter

from bridge.web import metrics
from bridge.web.http.problems import ProblemError


class Capacity:
    """Counts open streams by the token's name. `per_token` 0: no limit but the one in all."""

    def __init__(self, most: int, per_token: int = 0) -> None:
        self.most = most
        self._per_token = per_token
        self._open: Counter[str] = Counter()
        self._total = 0
        self.closing = False
        """Whether streams are being let go: no new ones then."""

    @property
    def open(self) -> int:
        return self._total

    def check(self, name: str) -> None:
        """Raises ProblemError: 503 where the front end is full or ends, 429 where the token has its share."""
        if self.closing or self._total >= self.most:
            title = "This front end is shutting down" if self.closing else "Too many subscribers on this front end"
            raise ProblemError(503, "overloaded", title, headers={"Retry-After": "10"})
        if self._per_token and self._open[name] >= self._per_token:
            title = "This token has as many streams open as it may"
            raise ProblemError(429, "too-many-streams", title, headers={"Retry-After": "10"})

    def take(self, name: str) -> None:
        """Counts one stream more; who was counted is released once. Raises as `check`."""
        self.check(name)
        self._open[name] += 1
        self._count(1)

    def release(self, name: str) -> None:
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
        self._count(-1)

    def _count(self, change: int) -> None:
        self._total += change
        metrics.SUBSCRIBERS.set(self._total)

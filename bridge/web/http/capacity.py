"""Limits on open streams: of the front end, and of each token."""

from __future__ import annotations

from collections import Counter

from bridge.web import metrics
from bridge.web.http.problems import ProblemError, ProblemType


class Capacity:
    """Counts open streams by the token's name. `per_token` 0: a token has no limit of its own."""

    def __init__(self, most: int, per_token: int = 0) -> None:
        self.most = most
        metrics.SUBSCRIBERS_LIMIT.set(most)
        self._per_token = per_token
        self.open = 0
        self._by_name: Counter[str] = Counter()
        self.closing = False
        """Set while the front end drains: it takes no new streams."""

    def check(self, name: str) -> None:
        """Raises ProblemError: 503 if the front end is full or is shutting down, 429 if the token has its share."""
        if self.closing:
            raise ProblemError(ProblemType.OVERLOADED, "it is shutting down", retry_after=1)
        if self.open >= self.most:
            raise ProblemError(ProblemType.OVERLOADED, f"its limit is {self.most}")
        if self._per_token and self._by_name[name] >= self._per_token:
            raise ProblemError(ProblemType.TOO_MANY_STREAMS, f"its limit here is {self._per_token}")

    def take(self, name: str) -> None:
        """Counts one more stream; the caller must release it once. Raises as `check`."""
        self.check(name)
        self._by_name[name] += 1
        self.open += 1
        metrics.SUBSCRIBERS.set(self.open)

    def release(self, name: str) -> None:
        self._by_name[name] -= 1
        if not self._by_name[name]:
            del self._by_name[name]
        self.open -= 1
        metrics.SUBSCRIBERS.set(self.open)

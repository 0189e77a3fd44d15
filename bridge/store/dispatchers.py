"""Whether webhooks are delivered at all: dispatchers leave the time of their work, and anybody may read it."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.clock import rfc3339
from bridge.store.connection import Backend, load_script
from bridge.store.lane_repair import run_lane_script
from bridge.store.limits import LaneLimits

SILENT_AFTER_MS = 15_000
"""A dispatcher leaves the time of its work every five seconds."""

_dispatching = load_script("lane_rules", "dispatching")


@dataclass(frozen=True, slots=True)
class Dispatching:
    """`needed`: there are enabled endpoints. Times are the server's; `seen_ms` is None if no dispatcher ever worked."""

    needed: bool
    seen_ms: int | None
    now_ms: int

    @property
    def trouble(self) -> str:
        """Since when no dispatcher has been at work; "" while one is, and while none is needed."""
        if not self.needed or (self.seen_ms is not None and self.now_ms - self.seen_ms <= SILENT_AFTER_MS):
            return ""
        return (
            "no dispatcher was ever seen"
            if self.seen_ms is None
            else f"no dispatcher since {rfc3339(self.seen_ms / 1000)}"
        )


async def read_dispatching(backend: Backend) -> Dispatching:
    """Raises StoreError."""
    enabled, seen, now = await run_lane_script(backend, _dispatching, [LaneLimits().to_json()])
    return Dispatching(int(enabled) > 0, int(seen) if seen else None, int(now))

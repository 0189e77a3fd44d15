"""The bounds of lanes and of deliveries' history."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bridge.config import Settings
from bridge.events import dumps

_SETTINGS = Settings()
"""The defaults of those that are settings."""


def _most_lost(finished: int) -> int:
    """A tenth of the history is left to delivered ones, however many were lost."""
    return finished * 9 // 10


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Passed to each script, so that every limit is written once; tests make them small."""

    concurrency: int = 10
    """Attempts at one endpoint at once: it is not flooded, and a dead one takes few of a dispatcher's attempts."""

    failures: int = 10
    """Failures in a row, of at least two lanes, that open the breaker: one event that a receiver cannot handle does not
    open it, and a receiver that fails half of the attempts seldom does."""

    probe_first_ms: int = 1_000
    probe_most_ms: int = 60_000
    """The wait between probes of an open breaker doubles from the first to the last."""

    away_ms: int = 60_000
    """If several lanes failed for so long without a success, the endpoint was away: the next success, such as the
    breaker's probe or a test, makes all lanes due at once."""

    disable_after_ms: int = round(_SETTINGS.webhook_disable_after * 1000)
    """How long all attempts at an endpoint may fail before it is disabled (`docs/contract.md#webhooks`)."""

    attempts: int = 20
    """Attempts kept per delivery."""

    finished: int = _SETTINGS.webhook_history
    """Finished deliveries kept per endpoint; delivered ones go first."""

    lost: int = _most_lost(finished)
    """Given-up and skipped ones among them."""

    keep_ms: int = round(_SETTINGS.webhook_keep * 1000)
    """How long finished deliveries are kept."""

    pending: int = _SETTINGS.webhook_pending
    """Waiting deliveries per endpoint; beyond that the oldest is skipped, because an old state is worth least."""

    quarantine_ms: int = 600_000
    """How long a lane or an endpoint with damaged keys rests: only an operator can repair them, and a result that
    cannot be recorded means that the same attempt is made again."""

    failing_ms: int = 3_600_000
    """How long all attempts at an endpoint fail before that is told."""

    given_up_ms: int = 3_600_000
    """The least time between two notices of one endpoint that a delivery was given up."""

    notices: int = 2_000
    """Notices that wait for a leader; of half a kilobyte each."""

    share_ms: int = 1_000
    """How long an endpoint with its full share of a dispatcher is passed over, unless one of its attempts ends."""

    changes: int = 12_000
    """Endpoints whose last change is remembered, more than there may be: a dispatcher reads only the changes."""

    claim_bytes: int = 4_000_000
    """Bytes of events in one claim's reply: a state may have a megabyte, and a reply must stay small."""

    @classmethod
    def of(cls, settings: Settings) -> LaneLimits:
        """With these settings in place of the defaults."""
        return cls(
            pending=settings.webhook_pending,
            finished=settings.webhook_history,
            lost=_most_lost(settings.webhook_history),
            keep_ms=round(settings.webhook_keep * 1000),
            disable_after_ms=round(settings.webhook_disable_after * 1000),
        )

    def to_json(self) -> str:
        return dumps(asdict(self))

"""The bounds of lanes and of deliveries' history."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bridge.events import dumps

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Given to each script, so that every rule is written once; tests make them small."""

    concurrency: int = 10
    """Attempts at one endpoint at once: a receiver is not flooded, and a dead one holds few of a dispatcher's."""

    failures: int = 10
    """Failures in a row, of at least two lanes, that open the breaker: one CVM's troubled event does not, and a
    receiver that fails half of its answers seldom does."""

    probe_first_ms: int = 1_000
    probe_most_ms: int = 60_000
    """The wait between probes of an open breaker doubles from the first to the last."""

    away_ms: int = 60_000
    """Failures of several lanes without a success for so long mean that the endpoint was away: the next success, as the
    breaker's probe or a test that passes, makes all lanes due at once."""

    disable_after_ms: int = 5 * DAY_MS
    """Contract section 8."""

    attempts: int = 20
    """Attempts kept per delivery."""

    finished: int = 1_000
    """Finished deliveries kept per endpoint; delivered ones go first."""

    lost: int = 900
    """Given-up and skipped ones among them."""

    keep_ms: int = 7 * DAY_MS
    """How long finished deliveries are kept."""

    pending: int = 10_000
    """Waiting deliveries per endpoint; beyond, the oldest is skipped: late news of a state is the least worth."""

    aside_ms: int = 600_000
    """How long a lane or an endpoint rests whose keys hold what they should not: only somebody's hand mends them, and a
    result that cannot be recorded means the same attempt again."""

    share_ms: int = 1_000
    """How long an endpoint that has its share of a dispatcher is passed over, if none of its attempts ends before."""

    changes: int = 12_000
    """Endpoints whose last change is remembered, more than there may be: a dispatcher reads only what has changed."""

    claim_bytes: int = 4_000_000
    """Events that one claim answers with: states may have a megabyte, and a reply must stay small."""

    def to_json(self) -> str:
        return dumps(asdict(self))

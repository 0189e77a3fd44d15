"""One attempt: renders the event in the endpoint's format, signs and sends it, and judges the outcome."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge import tracing
from bridge.clock import Clock, rfc3339
from bridge.events import NOTICES, Event
from bridge.log_throttle import LogThrottle
from bridge.sealing import SealError
from bridge.store.deliveries import Attempt
from bridge.store.endpoint_notices import given_up_detail
from bridge.store.lanes import TEST_TYPE, Claim, Result, Verdict
from bridge.tracing import Span, Trace
from bridge.webhook_formats import Format
from bridge.webhooks import metrics
from bridge.webhooks.endpoint_cache import EndpointCache, Opened
from bridge.webhooks.formats import Rendered
from bridge.webhooks.schedule import AttemptOutcome, InTime, NotAttemptedError, Schedule

logger = logging.getLogger(__name__)

RENDERED = 256
"""Rendered bodies kept: a thousand endpoints may want the same event at the same moment."""

LARGEST_KEPT = 64 * 1024
"""Bytes of a body that is kept; states have some 700."""


REPLAY: Mapping[str, str] = {"bridge-replay": "1"}
"""The header of what was delivered before, or was asked for with all of its period."""


class Poster(Protocol):
    """One HTTP POST with a deadline of its own; raises NotAttemptedError and CancelledError.

    `in_time` is asked at the moment at which the request would go out.
    """

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime) -> AttemptOutcome: ...


class Render(Protocol):
    def __call__(self, format: Format, event: Event, *, ran: bool) -> Rendered: ...


class Sign(Protocol):
    def __call__(
        self,
        delivery_id: str,
        at: int,
        body: bytes,
        secrets: Sequence[str],
        keys: Sequence[Ed25519PrivateKey],
        /,
        *,
        phala: bool,
    ) -> Mapping[str, str]: ...


@dataclass(eq=False, kw_only=True)
class Attempts:
    """Makes attempts; any number at once."""

    endpoint_cache: EndpointCache
    poster: Poster
    render: Render
    sign: Sign
    schedule: Schedule
    clock: Clock
    rng: random.Random
    """Makes the ids of traces."""
    _rendered: OrderedDict[tuple[str, str], Rendered] = field(default_factory=OrderedDict, init=False)
    _log_throttle: LogThrottle = field(init=False)

    def __post_init__(self) -> None:
        self._log_throttle = LogThrottle(self.clock)

    async def make(self, claim: Claim, in_time: InTime) -> Result | None:
        """The attempt's result; None if the endpoint was removed. Raises nothing but CancelledError.

        `in_time`: whether the claim still allows a request to begin.
        """
        at, about = self.clock.time(), ""
        trace = _trace(claim, self.rng)
        tracing.current.set(trace)  # each attempt is a task of its own
        try:
            opened = self.endpoint_cache.opened(claim.endpoint_id)
            if opened is None:
                return None
            if self._is_beyond(claim):
                return Result(claim, "withheld", 0.0, 0.0, "")
            about = opened.about
            outcome = await self._post(claim, opened, at, in_time, trace)
        except NotAttemptedError as error:
            return self._postponed(claim, error)
        except SealError as error:
            return self._postponed(claim, NotAttemptedError("sealed", str(error)))
        except Exception as error:  # a fault in one delivery must not end the dispatcher
            # Only the kind: the message may quote a sealed value.
            logger.error("an attempt could not be made", extra={**_fields(claim), "kind": type(error).__name__})
            outcome = AttemptOutcome(error=f"internal: {type(error).__name__}")
        _export(claim, trace, at, outcome)
        return self._result(claim, about, at, outcome)

    def _is_beyond(self, claim: Claim) -> bool:
        """Whether the endpoint's owner may no longer see this CVM, as it might when the event was queued."""
        endpoint = self.endpoint_cache.endpoint_set.endpoints[claim.endpoint_id]
        return claim.event.type != TEST_TYPE and not endpoint.reaches(claim.event)

    async def _post(self, claim: Claim, opened: Opened, at: float, in_time: InTime, trace: Trace) -> AttemptOutcome:
        format = self.endpoint_cache.endpoint_set.endpoints[claim.endpoint_id].format
        rendered = self._body(format, claim)
        phala, secrets = format == "phala", opened.valid_secrets(at)
        if phala and secrets:
            # One signature has room: a receiver that has another secret accepts the next attempt, or the one after.
            turn = claim.failures % len(secrets)
            secrets = secrets[turn:] + secrets[:turn]
        keys = opened.valid_keys(at)
        signed = self.sign(claim.delivery_id, int(at), rendered.body, secrets, keys, phala=phala)
        given = {name.lower() for name in opened.headers}
        made = {**rendered.headers, **trace.fields}
        made = {name: value for name, value in made.items() if name not in given}
        headers = {**opened.headers, **made, **signed, **(REPLAY if claim.replay else {})}
        return await self.poster.post(opened.url, headers, rendered.body, in_time)

    def _body(self, format: Format, claim: Claim) -> Rendered:
        key = format, claim.event.id
        found = self._rendered.get(key)
        if found is None:
            found = self.render(format, claim.event, ran=claim.ran)
            if len(found.body) <= LARGEST_KEPT:
                self._rendered[key] = found
                if len(self._rendered) > RENDERED:
                    self._rendered.popitem(last=False)
        return found

    def _postponed(self, claim: Claim, error: NotAttemptedError) -> Result:
        metrics.NOT_ATTEMPTED.labels(error.why).inc()
        # A fault of this machine: all endpoints have it at the same time.
        if count := self._log_throttle.due(error.why):
            extra = {"why": error.why, "error": str(error), "attempts": count}
            logger.error("attempts cannot be made and are postponed", extra=extra)
        return Result(claim, "postponed", self.schedule.postponed(), self.schedule.jitter(), f"{error.why}: {error}")

    def _result(self, claim: Claim, about: str, at: float, outcome: AttemptOutcome) -> Result:
        once = claim.event.type == TEST_TYPE
        verdict, wait = self.schedule.verdict(outcome, claim.failures, once=once)
        metrics.ATTEMPT_SECONDS.observe(outcome.duration_ms / 1000)
        _log(claim, verdict, outcome)
        body = "" if verdict == "delivered" else outcome.response_body  # it would only cost memory
        attempt = Attempt(rfc3339(at), outcome.duration_ms, outcome.status_code, outcome.error, body)
        hold = 0.0 if outcome.ok else outcome.retry_after or 0.0
        # No notice follows from a notice that was not delivered: that would have no end.
        is_told = verdict == "given_up" and not once and claim.event.type not in NOTICES
        given_up = given_up_detail(claim.event, claim.delivery_id, outcome.error, claim.failures + 1) if is_told else ""
        shown = "" if outcome.ok else about
        return Result(claim, verdict, wait, self.schedule.jitter(), attempt.to_json(), hold, shown, given_up)


def _trace(claim: Claim, rng: random.Random) -> Trace:
    """A span within the event's trace; of a new one where the event has none."""
    found = claim.event.trace
    return found.child(rng) if found else tracing.begin(rng)


def _export(claim: Claim, trace: Trace, at: float, outcome: AttemptOutcome) -> None:
    if tracing.are_exported():
        event, ended = claim.event.trace, at + outcome.duration_ms / 1000
        about: dict[str, object] = {
            "delivery": claim.delivery_id,
            "event": claim.event.id,
            "attempt": claim.failures + 1,
        }
        about["http.response.status_code"] = outcome.status_code
        parent_id, fault = event.span_id if event else "", outcome.error or ""
        tracing.finished(
            Span(name="attempt", trace=trace, parent_id=parent_id, began=at, ended=ended, about=about, fault=fault)
        )


def _log(claim: Claim, verdict: Verdict, outcome: AttemptOutcome) -> None:
    """A line costs as much as an attempt: the usual case, which the delivery's history shows too, has none."""
    usual = verdict == "delivered" and not claim.failures
    level = logging.DEBUG if usual else logging.INFO
    if logger.isEnabledFor(level):
        told = {"verdict": verdict, "status": outcome.status_code, "error": outcome.error, "ms": outcome.duration_ms}
        extra = {**_fields(claim), "attempt": claim.failures + 1, **told}
        logger.log(level, "an attempt was made", extra=extra)


def _fields(claim: Claim) -> dict[str, object]:
    """Of a log line about an attempt, beside its trace."""
    event = claim.event
    about = {"cvm_id": event.cvm_id} if event.cvm_id else {}
    return {
        "delivery": claim.delivery_id,
        "endpoint": claim.endpoint_id,
        "event": event.id,
        "type": event.type,
        **about,
    }

"""Resolves references to canonical ids by the leader's answers; callers that wait for one reference share a request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import Response

from bridge.clock import Clock
from bridge.events import usable_id
from bridge.store.errors import TooManyLookupsError
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web.api.envelopes import CVM_ID
from bridge.web.http.access import ANYBODY, Principal
from bridge.web.http.allowance import Allowance
from bridge.web.http.parameters import REFERENCE, in_path
from bridge.web.http.problems import ProblemError, ProblemType, invalid, problem_response, unavailable
from bridge.web.http.responses import NO_STORE
from bridge.web.http.single_flight import SingleFlight

PATIENCE = 10.0
ASK_AGAIN_EVERY = 1.0
"""Seconds between two reads of the answer; the message that it exists is only a hint."""


class ReferenceRefusedError(Exception):
    """Upstream refused the reference; its answer is passed on unchanged."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("upstream refused the reference")
        self.answer = answer


REF = in_path(
    "ref", "An id or a name: any reference that Phala Cloud accepts for a CVM", CVM_ID, REFERENCE, is_reference=True
)


class References:
    """`resolve` and `ask` wait at most `PATIENCE` seconds for a leader."""

    def __init__(
        self, lookups: ReferenceLookups, watches: Watches, clock: Clock, single_flight: SingleFlight, *, per_minute: int
    ) -> None:
        """`per_minute`: look-ups of unknown references for each token."""
        self._allowance = Allowance(per_minute, clock)
        self._lookups = lookups
        self._watches = watches
        self._clock = clock
        self._single_flight = single_flight
        # Only waiting callers hold the values: an entry is gone with the last of them.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closed = False

    def answered(self, reference: str) -> None:
        """The leader answered: waiting callers read the answer from Redis."""
        if (event := self._waiting.pop(reference, None)) is not None:
            event.set()

    def close(self) -> None:
        """Ends all waiting, because the front end stops."""
        self._closed = True
        for reference in list(self._waiting):
            self.answered(reference)

    async def resolve(self, reference: str, principal: Principal = ANYBODY) -> str:
        """The canonical id. Raises as `resolve_all`."""
        return (await self.resolve_all([reference], principal))[0]

    async def resolve_all(self, references: Sequence[str], principal: Principal = ANYBODY) -> list[str]:
        """The canonical ids, in order; ids that are watched cost one round trip in all.

        Raises ProblemError (403, 422, 429, 503), StoreError or ReferenceRefusedError.
        """
        if any(usable_id(reference) is None for reference in references):
            raise invalid("cvm", "a reference has 1 to 256 printable characters")
        if not references:
            return []
        # Callers that ask for the same at the same moment share one question.
        wanted = tuple(references)
        watched = await self._single_flight.ask(("watched", wanted), lambda: self._watches.existing(wanted))
        unknown = [reference for reference in wanted if reference not in watched]
        asking = [asyncio.ensure_future(self._look_up(reference, principal)) for reference in unknown]
        try:
            found = dict(zip(unknown, await asyncio.gather(*asking), strict=True))
        finally:
            for each in asking:
                each.cancel()
        cvm_ids = [found.get(reference, reference) for reference in wanted]
        for cvm_id in cvm_ids:
            principal.require(cvm_id)
        return cvm_ids

    async def _look_up(self, reference: str, principal: Principal) -> str:
        # By token, because each has an allowance: nobody is refused for another's.
        question = partial(self._answer, reference, principal)
        answer = await self._single_flight.ask(("reference", reference, principal.name), question)
        if answer.cvm_id is not None:
            return answer.cvm_id
        if answer.is_final and principal.cvms is not None:
            principal.refuse()  # the same answer as for another's CVM: it tells nothing about what exists
        raise ReferenceRefusedError(answer)

    async def _answer(self, reference: str, principal: Principal) -> Answer:
        if (known := await self._lookups.find(reference)) is not None:
            return known
        # An administrator may name as many as upstream bears; the leader has a budget for all.
        wait = 0.0 if principal.admin else self._allowance.take(principal.name)
        if wait:
            detail = f"BRIDGE_LOOKUPS_PER_MINUTE is {self._allowance.per_minute}"
            raise ProblemError(ProblemType.TOO_MANY_LOOKUPS, detail, retry_after=math.ceil(wait))
        return await self.ask(reference)

    async def ask(self, reference: str) -> Answer:
        """Upstream's answer about a reference, at most a minute old. Raises ProblemError 503 or StoreError."""
        deadline = self._clock.monotonic() + PATIENCE
        while not self._closed and self._clock.monotonic() < deadline:
            # Before the read, so that an answer that comes in between is not missed.
            event = self._waiting.setdefault(reference, asyncio.Event())
            try:
                answer = await self._lookups.ask(reference)
                if answer is not None:
                    return answer
                async with asyncio.timeout(ASK_AGAIN_EVERY):
                    await event.wait()
            except TimeoutError:
                continue
            except TooManyLookupsError as error:
                raise unavailable("too many unknown references are being looked up") from error
        if self._closed:
            raise unavailable("this front end is shutting down")
        raise unavailable("no leader has answered about this reference; is `bridge upstream` running?", 5)

    async def ask_anew(self, reference: str) -> Answer:
        """As `ask`, for a reference whose CVM was deleted since it was found."""
        answer = await self.ask(reference)
        if answer.cvm_id is None:
            return answer
        await self._lookups.forget(reference)
        return await self.ask(reference)


def problem_of(error: ReferenceRefusedError) -> ProblemError:
    """For clients that cannot be shown upstream's own answer."""
    status = error.answer.status
    if error.answer.is_final:
        return ProblemError(ProblemType.UPSTREAM, status=status)
    if status in (401, 403):
        return ProblemError(ProblemType.UPSTREAM, "upstream refuses the bridge's own API key")
    return ProblemError(ProblemType.UPSTREAM, status=429 if status == 429 else None)


async def on_refused_reference(request: Request, error: Exception) -> Response:
    """Upstream's own answer where it is about the reference; else a passing problem, which tells nothing more."""
    assert isinstance(error, ReferenceRefusedError)
    answer = error.answer
    if answer.is_final and answer.body:
        return Response(answer.body, answer.status, NO_STORE, media_type=answer.content_type)
    return problem_response(problem_of(error))

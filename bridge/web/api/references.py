"""Resolves references to canonical ids by the leader's answers; callers that wait for one reference share a request."""

from __future__ import annotations

import asyncio
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

    def __init__(self, lookups: ReferenceLookups, watches: Watches, clock: Clock, single_flight: SingleFlight) -> None:
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
        """The canonical id; callers that ask for one CVM at the same moment share one look-up.

        Raises ProblemError (403, 422, 503), StoreError or ReferenceRefusedError.
        """
        cvm_id = await self._single_flight.ask(("reference", reference), lambda: self._resolve(reference))
        principal.require(cvm_id)
        return cvm_id

    async def _resolve(self, reference: str) -> str:
        if usable_id(reference) is None:
            raise invalid("cvm", "a reference has 1 to 256 printable characters")
        if await self._watches.exists(reference):
            return reference
        answer = await self.ask(reference)
        if answer.cvm_id is None:
            raise ReferenceRefusedError(answer)
        return answer.cvm_id

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


async def on_refused_reference(request: Request, error: Exception) -> Response:
    """Upstream's status and body; without a body, a problem."""
    assert isinstance(error, ReferenceRefusedError)
    answer = error.answer
    if not answer.body:
        return problem_response(ProblemError(ProblemType.UPSTREAM, status=answer.status))
    return Response(answer.body, answer.status, NO_STORE, media_type=answer.content_type)

"""References to canonical ids, by the leader's answers: many who wait for one reference cost one request."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from starlette.responses import Response

from bridge.clock import Clock
from bridge.events import usable_id
from bridge.store.errors import TooManyLookupsError
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web.http.problems import ProblemError, invalid, problem_response, unavailable

PATIENCE = 10.0
ASK_AGAIN_EVERY = 1.0
"""The answer's message is a hint; the answer itself is looked for this often."""


class UpstreamRefusalError(Exception):
    """Upstream's own error about a reference, to be passed on as it came."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("upstream refused the reference")
        self.answer = answer


class References:
    def __init__(self, lookups: ReferenceLookups, watches: Watches, clock: Clock) -> None:
        self._lookups = lookups
        self._watches = watches
        self._clock = clock
        # Held by who waits: the entry goes with the last of them, however it ends.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closed = False

    def answered(self, reference: str) -> None:
        """The leader answered; the answer itself is read from Redis."""
        if (event := self._waiting.pop(reference, None)) is not None:
            event.set()

    def close(self) -> None:
        """Nobody waits any longer: the front end ends."""
        self._closed = True
        for reference in list(self._waiting):
            self.answered(reference)

    async def resolve(self, reference: str) -> str:
        """The canonical id. Raises ProblemError (422, 503) or UpstreamRefusalError."""
        if usable_id(reference) is None:
            raise invalid("cvm", "a reference has 1 to 256 printable characters")
        if await self._watches.exists(reference):
            return reference
        answer = await self.ask(reference)
        if answer.cvm_id is None:
            raise UpstreamRefusalError(answer)
        return answer.cvm_id

    async def ask(self, reference: str) -> Answer:
        """Upstream's word on a reference, at most a minute old, whether it is watched or not. Raises ProblemError."""
        deadline = self._clock.monotonic() + PATIENCE
        while not self._closed and self._clock.monotonic() < deadline:
            # Before asking: an answer that comes in between is not missed.
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
        """As `ask`, where it is known that a reference that was found is gone since. Raises ProblemError."""
        answer = await self.ask(reference)
        if answer.cvm_id is None:
            return answer
        await self._lookups.forget(reference)
        return await self.ask(reference)


def refusal_response(error: UpstreamRefusalError) -> Response:
    """Upstream's status and body. Without a body of its own: a problem."""
    answer = error.answer
    if not answer.body:
        title = "Upstream could not be asked about this CVM"
        return problem_response(ProblemError(answer.status, "upstream", title, headers={"Retry-After": "5"}))
    headers = {"Cache-Control": "no-store"}
    return Response(answer.body, answer.status, headers, media_type=answer.content_type)

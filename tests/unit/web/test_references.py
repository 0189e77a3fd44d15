"""References of callers with different tokens that ask for one CVM at the same moment."""

from __future__ import annotations

import asyncio

from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.web.api.references import References
from bridge.web.api.stand_ins import StandIns
from bridge.web.http.access import Principal
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.http.single_flight import SingleFlight
from tests.fakes import fake_backend
from tests.virtual import VirtualClock, run_virtual

READER = Principal("reader", admin=False, cvms=None)
OTHER = Principal("other", admin=False, cvms=None)


def test_a_token_that_may_ask_no_more_has_nobody_else_refused() -> None:
    async def scenario() -> None:
        backend, clock = fake_backend(), VirtualClock()
        lookups = ReferenceLookups(backend)
        stand_ins = StandIns(Snapshots(backend), lookups, clock)
        references = References(
            lookups, Watches(backend), clock, SingleFlight("look-up"), stand_ins, led=lambda: True, per_minute=1
        )
        await lookups.answer(Answer("web-1", "cvm-1"))
        assert await references.resolve("web-1", READER) == "cvm-1"  # it was answered lately, and costs nothing
        used = asyncio.create_task(references.resolve("web-2", READER))
        await asyncio.sleep(0.1)
        refused, served = (asyncio.create_task(references.resolve("web-3", each)) for each in (READER, OTHER))
        await asyncio.sleep(0.1)
        for number in (2, 3):
            await lookups.answer(Answer(f"web-{number}", f"cvm-{number}"))
        assert (await used, await served) == ("cvm-2", "cvm-3")
        error = (await asyncio.gather(refused, return_exceptions=True))[0]
        assert isinstance(error, ProblemError)
        assert error.type is ProblemType.TOO_MANY_LOOKUPS
        await backend.close()

    run_virtual(scenario())

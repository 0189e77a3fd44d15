"""References of callers with different tokens that ask for one CVM at the same moment."""

from __future__ import annotations

import asyncio

from bridge.store.connection import Backend
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.web.api.references import References
from bridge.web.api.stand_ins import StandIns
from bridge.web.api.visibility import Visibility
from bridge.web.http.access import Principal
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.http.single_flight import SingleFlight
from tests.fakes import CountedCalls, fake_backend
from tests.virtual import VirtualClock, run_virtual

READER = Principal("reader", admin=False, cvms=None)
OTHER = Principal("other", admin=False, cvms=None)


def of_one_lookup(lookups: ReferenceLookups, backend: Backend, clock: VirtualClock) -> References:
    """With a leader; each token may ask for one unknown reference in a minute."""
    snapshots = Snapshots(backend)
    return References(
        lookups,
        Watches(backend),
        clock,
        SingleFlight("look-up"),
        StandIns(snapshots, lookups, clock),
        visibility=Visibility(snapshots, SingleFlight("look-up")),
        led=lambda: True,
        per_minute=1,
    )


def test_a_token_that_may_ask_no_more_has_nobody_else_refused() -> None:
    async def scenario() -> None:
        backend, clock = fake_backend(), VirtualClock()
        lookups = ReferenceLookups(backend)
        references = of_one_lookup(lookups, backend, clock)
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


class Counting(ReferenceLookups):
    """Counts what is read."""

    reads = 0

    async def find(self, reference: str) -> Answer | None:
        self.reads += 1
        return await super().find(reference)


def test_the_names_behind_the_first_refusal_cost_nothing() -> None:
    async def scenario() -> None:
        backend, clock = fake_backend(), VirtualClock()
        lookups = Counting(backend)
        references = of_one_lookup(lookups, backend, clock)
        names = [f"web-{number}" for number in range(1000)]
        for name in names[:500]:
            await lookups.answer(Answer(name, f"cvm of {name}"))
        assert len(await references.resolve_all(names[:500], READER)) == 500
        assert lookups.reads == 500
        for _ in range(2):
            error = (await asyncio.gather(references.resolve_all(names[500:], READER), return_exceptions=True))[0]
            assert isinstance(error, ProblemError)
            assert error.type is ProblemType.TOO_MANY_LOOKUPS
        assert lookups.reads <= 600
        await asyncio.sleep(20)  # for the one that was allowed
        await backend.close()

    run_virtual(scenario())


def test_watched_cvms_are_resolved_in_one_round_trip_however_many_they_are() -> None:
    async def scenario() -> None:
        backend, clock = CountedCalls(), VirtualClock()
        lookups, watches = ReferenceLookups(backend), Watches(backend)
        references = of_one_lookup(lookups, backend, clock)
        names = [f"cvm-{number}" for number in range(1000)]
        await watches.renew(names)
        backend.calls = 0
        assert await references.resolve_all(names, READER) == names
        assert backend.calls == 1
        await backend.close()

    run_virtual(scenario())

"""One error, one effect: whichever caller meets an upstream error, budget and staleness change alike."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.config import Settings
from bridge.store.confirmations import Confirmations
from bridge.store.connection import Backend
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter
from bridge.store.slots import Slots
from bridge.store.watches import Watches
from bridge.upstream.batch_reader import ask_batch
from bridge.upstream.budget import Budget
from bridge.upstream.client import ListPage, PhalaClient, Reading, StreamEvent
from bridge.upstream.errors import (
    RULES,
    AccountEffect,
    BatchAbsentError,
    ForbiddenError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
    UnparsableError,
    UpstreamError,
    error_for,
)
from bridge.upstream.journal import Journal
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.pace import Pace
from bridge.upstream.reader import read
from bridge.upstream.recorder import Recorder
from bridge.upstream.resolver import Resolver
from bridge.upstream.slots import Slot
from bridge.upstream.tracked import Tracked
from bridge.upstream.watcher import watch
from bridge.upstream.workspace import Workspace
from tests.fakes import HandClock
from tests.unit.upstream.model import no_events

STATUSES = (204, 302, 400, 401, 403, 404, 408, 409, 422, 428, 429, 500, 503)
ERRORS = [error_for(status, b"", "", 30.0) for status in STATUSES] + [UnparsableError(status=200)]
ERRORS += [error_for(404, b'{"error_code":"ERR-03-001"}', "application/json", None)]


class StoppedClock(HandClock):
    def monotonic(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


class FailingClient(PhalaClient):
    """Every request ends in `error`."""

    def __init__(self, error: UpstreamError) -> None:
        self.error = error

    async def read_state(self, ref: str) -> Reading:
        raise self.error

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        raise self.error

    async def list_page(self, number: int) -> ListPage:
        raise self.error

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        await self.read_state(ref)
        yield no_events()


async def leading(backend: Backend, error: UpstreamError, *cvms: str) -> LeaderContext:
    """A term in which CVM "a" is watched and upstream answers every request with `error`."""
    clock, settings = StoppedClock(), Settings(cvms=cvms)
    term = await Leadership(backend).acquire("one", 10, "log")
    assert isinstance(term, Term)
    await Watches(backend).want("a")
    journal, watches = Journal(backend.keys.source), {"a": Tracked.loaded("a", None, 1000.0)}
    journal.resume(term, None)
    writer, confirmations = LogWriter(backend, 100), Confirmations(backend, term, {})
    recorder = Recorder(writer, confirmations, term, clock, journal, watches, random.Random(1))
    slots = [Slot(index) for index in range(5)]
    return LeaderContext(
        settings=settings,
        clock=clock,
        rng=random.Random(1),
        client=FailingClient(error),
        term=term,
        recorder=recorder,
        redis_slots=Slots(backend),
        budget=Budget(5, refilled_at=1000.0),
        slots=slots,
        streams_from=0.0,
        watches=watches,
        pace=Pace(settings.poll_interval, settings.stream_interval),
    )


async def by_stream(context: LeaderContext, _: Backend) -> None:
    slot = context.slots[0]
    slot.take("a", (context.term.holder, context.term.epoch), 1000.0, 1085.0)
    await watch(context, context.watches["a"], slot)


async def by_read(context: LeaderContext, _: Backend) -> None:
    await read(context, context.watches["a"])


async def by_batch(context: LeaderContext, _: Backend) -> None:
    await ask_batch(context, ("a",))


async def by_reference(context: LeaderContext, _: Backend) -> None:
    with contextlib.suppress(UpstreamError):
        await Resolver(context, Workspace(context)).resolve("name", ours=True)


async def by_list(context: LeaderContext, _: Backend) -> None:
    await Workspace(context).listed_since(1000.0, 0.0, judges_key=True)


async def by_lookup(context: LeaderContext, _: Backend) -> None:
    await Resolver(context, Workspace(context)).look_up("b")


CALLERS: dict[str, tuple[Callable[[LeaderContext, Backend], Awaitable[None]], tuple[str, ...]]] = {
    "stream": (by_stream, ()),
    "read": (by_read, ()),
    "batch": (by_batch, ()),
    "discovery of a reference": (by_reference, ("name",)),
    "discovery of the list": (by_list, ("*",)),
    "look-up": (by_lookup, ()),
}


def effect_on_account(context: LeaderContext) -> AccountEffect:
    """Read off the budget, which knew of one forbidden CVM before."""
    budget, now = context.budget, context.clock.monotonic()
    if budget.is_blocked:
        assert budget.stale_reason(now) == "unauthorized"
        return AccountEffect.BLOCK
    if budget.streams < budget.most_streams or budget.refill(now) == 0:
        return AccountEffect.SLOW_DOWN
    return {0: AccountEffect.ACCEPTED, 1: AccountEffect.NOTHING}.get(len(budget.forbidden), AccountEffect.SUSPECT)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.status}")
@pytest.mark.parametrize("caller", CALLERS)
async def test_an_error_has_the_effect_of_the_table_whichever_caller_meets_it(
    backend: Backend, caller: str, error: UpstreamError
) -> None:
    ask, cvms = CALLERS[caller]
    context = await leading(backend, error, *cvms)
    context.budget.forbidden.add("earlier")
    await ask(context, backend)
    expected = RULES[type(error)].account
    if caller == "look-up" and isinstance(error, ForbiddenError):
        expected = AccountEffect.NOTHING  # anybody may ask for the CVM of another account
    if caller == "batch" and expected is not AccountEffect.SLOW_DOWN:
        expected = AccountEffect.NOTHING  # the reads that follow show whether the key works
    if caller in ("look-up", "discovery of a reference") and isinstance(error, UnparsableError):
        expected = AccountEffect.ACCEPTED  # it came with status 200
    assert effect_on_account(context) is expected
    if expected is AccountEffect.SLOW_DOWN and caller != "stream":
        budget = context.budget
        assert (budget.stale_reason(1029.9), budget.stale_reason(1030.0), budget.rate) == ("rate_limited", None, 10.0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.status}")
@pytest.mark.parametrize("ask", [by_stream, by_read])
async def test_a_watch_grows_stale_for_the_reason_of_the_table(
    backend: Backend, ask: Callable[[LeaderContext, Backend], Awaitable[None]], error: UpstreamError
) -> None:
    context = await leading(backend, error)
    await ask(context, backend)
    tracked = context.watches["a"]
    assert not tracked.gone
    if error.reason == "not_found" and ask is by_stream:
        assert tracked.reads.is_hinted  # the state route alone tells
    else:
        assert tracked.seen.failure == error.reason


@pytest.mark.parametrize(("error", "backs_off"), [(RateLimitedError(), False), (ServerError(), True)])
async def test_a_cvm_whose_read_was_limited_waits_for_the_account_alone(
    backend: Backend, error: UpstreamError, backs_off: bool
) -> None:
    context = await leading(backend, error)
    await by_read(context, backend)
    assert (context.watches["a"].reads.backoff.until > 1000.0) is backs_off


async def test_a_batch_route_that_is_absent_is_left_alone_and_counts_for_nothing(backend: Backend) -> None:
    context = await leading(backend, BatchAbsentError(status=404))
    await by_batch(context, backend)
    assert not context.batch_route
    assert effect_on_account(context) is AccountEffect.ACCEPTED  # none was forbidden before, none is now


async def test_a_blocked_account_is_asked_for_no_reference_before_its_probe(backend: Backend) -> None:
    context = await leading(backend, UnauthorizedError(status=401))
    await by_lookup(context, backend)
    context.client = FailingClient(AssertionError())  # type: ignore[arg-type]
    await by_lookup(context, backend)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"error_code":"ERR-03-001"}', 404), (b"404 page not found", 503), (b'{"detail":"Not Found"}', 503)],
)
async def test_a_proxys_404_to_a_look_up_is_no_answer_about_the_reference(
    backend: Backend, body: bytes, status: int
) -> None:
    context = await leading(backend, error_for(404, body, "", None))
    answer = await Resolver(context, Workspace(context)).look_up("b")
    assert (answer.cvm_id, answer.status) == (None, status)


def test_every_error_has_a_row() -> None:
    def family(kind: type[UpstreamError]) -> set[type[UpstreamError]]:
        return {kind}.union(*(family(each) for each in kind.__subclasses__()))

    assert set(RULES) == family(UpstreamError)

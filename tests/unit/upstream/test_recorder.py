"""Events are written in the order in which they were decided, and none follows the end of a watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.clock import SystemClock
from bridge.events import DROPPED, STATE, parse_state
from bridge.store.confirmations import Confirmations
from bridge.store.connection import Backend
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.watches import Watches
from bridge.upstream.recorder import Recorder
from bridge.upstream.tracked import Observation, Tracked
from tests.fakes import fake_backend


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    made = fake_backend()
    yield made
    await made.close()


def seen(status: str, at: float) -> Observation:
    state = parse_state(f'{{"id":"a","status":"{status}"}}')
    return Observation(state=state, by="poll", sent_at=at, made_at=at)


async def test_observations_that_waited_while_a_watch_was_dropped_write_nothing(backend: Backend) -> None:
    term = await Leadership(backend).acquire("one", 10, "log")
    assert isinstance(term, Term)
    confirmations, written = Confirmations(backend, term, {}), WritePosition(term.sequence, term.last_id)
    recorder = Recorder(LogWriter(backend, 100), confirmations, term, SystemClock(), written)
    await Watches(backend).want("a")
    tracked = Tracked("a")
    await recorder.record(tracked, seen("running", 1))
    _, late, *_ = await asyncio.gather(
        recorder.drop(tracked, 2**53),
        recorder.record(tracked, seen("stopped", 2)),
        recorder.mark_stale(tracked, "unreachable"),
        recorder.confirm(tracked, 3),
    )
    await recorder.flush()
    assert not late
    assert [event.type for event in await Log(backend).read("0-0", 9)] == [STATE, DROPPED]
    position, states = await Log(backend).snapshot()
    assert position is not None
    assert (position.sequence, states) == (2, {})

"""A transition and the readiness that follows from it: one step, so both are in the log or neither, each once."""

from __future__ import annotations

import json
import logging

import pytest

from bridge.events import READINESS, STATE, TRANSITION
from bridge.store.connection import Backend
from bridge.store.errors import FencedError
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.upstream.journal import Loss
from tests.backups import Backup
from tests.unit.upstream.recording import Process

FIRST, TURN, BUSY = (STATE, True), (TRANSITION, False), (READINESS, False)


async def told(backend: Backend) -> list[tuple[int, tuple[str, bool]]]:
    """Number, type and `ready` of each event of the log."""
    events = await Log(backend).read("0-0", 99)
    return [(event.sequence, (event.type, json.loads(event.json)["data"]["ready"])) for event in events]


async def ready(backend: Backend) -> Process:
    """A leader that has written the first state: running and ready."""
    process = Process(backend)
    await process.lead()
    await process.see_operation("a", "running", in_progress=False)
    await process.write()
    return process


async def restart(process: Process) -> None:
    """Decides two events in one step."""
    await process.see_operation("a", "restarting", in_progress=True)


async def snapshot(backend: Backend) -> tuple[str | None, bool | None]:
    found = (await Snapshots(backend).all())["a"]
    return found.status, found.ready


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("new_term", [False, True])
async def test_both_are_written_once_whatever_became_of_the_reply(
    backend: Backend, cut: str, *, new_term: bool
) -> None:
    process = await ready(backend)
    process.backend.cut = cut
    await restart(process)
    await process.try_to_write()
    process.backend.cut = ""
    if new_term:
        await process.resign()
        assert await process.lead() is None
    await process.write()
    assert await told(backend) == [(1, FIRST), (2, TURN), (3, BUSY)]
    assert await snapshot(backend) == ("restarting", False)
    await process.see_operation("a", "running", in_progress=False)
    await process.write()
    assert (await told(backend))[3:] == [(4, (TRANSITION, True)), (5, (READINESS, True))]


@pytest.mark.parametrize("new_term", [False, True])
async def test_both_are_written_again_after_a_lost_tail_behind_a_gap(backend: Backend, *, new_term: bool) -> None:
    process = await ready(backend)
    backup = await Backup.of(backend)
    await restart(process)
    await process.write()
    for first in (5, 8):  # after one unused number each time
        before = await Log(backend).latest(2)
        await backup.restore(backend)
        if new_term:
            await process.resign()
            assert await process.lead() == Loss(1, 2, 0)
        else:
            process.recorder.compare(process.recorder.position, 1, (await Log(backend).latest(1))[0].id)
        await process.write()
        assert await told(backend) == [(1, FIRST), (first, TURN), (first + 1, BUSY)]
        assert min(e.id for e in await Log(backend).latest(2)) > max(e.id for e in before)
        assert await snapshot(backend) == ("restarting", False)


async def test_both_have_one_trace_and_a_log_line_each(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    process = await ready(backend)
    caplog.set_level(logging.INFO)
    await restart(process)
    await process.write()
    _, turn, busy = await Log(backend).read("0-0", 9)
    assert turn.trace == busy.trace
    assert turn.trace is not None
    told = [vars(record) for record in caplog.records if record.message == "an event was written"]
    assert [(line["event"], line["type"], line["trace_id"]) for line in told] == [
        (turn.id, TRANSITION, turn.trace.trace_id),
        (busy.id, READINESS, turn.trace.trace_id),
    ]


async def test_neither_is_written_once_another_process_leads(backend: Backend) -> None:
    process, other = await ready(backend), Process(backend, "other")
    await process.resign()
    await other.lead()
    await restart(process)
    with pytest.raises(FencedError):
        await process.write()
    await other.resign()
    await process.lead()
    await process.write()
    assert await told(backend) == [(1, FIRST)]


async def test_a_step_that_got_no_answer_is_found_written_after_another_process_led(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    process, other = await ready(backend), Process(backend, "other")
    process.backend.cut = "after"
    await restart(process)
    await process.try_to_write()
    process.backend.cut = ""
    await process.resign()
    await other.lead()
    await other.resign()
    await process.lead()
    await process.see_operation("a", "running", in_progress=False)
    await process.write()
    assert await told(backend) == [(1, FIRST), (2, TURN), (3, BUSY), (4, (TRANSITION, True)), (5, (READINESS, True))]
    assert "not written" not in caplog.text


async def test_a_log_that_ends_between_the_two_ends_the_term_and_repeats_nothing(backend: Backend) -> None:
    """Redis cannot lose one of them alone; somebody changed the log."""
    process = await ready(backend)
    await restart(process)
    await process.write()
    _, turn, busy = await Log(backend).read("0-0", 9)
    await backend.client.xdel(backend.keys.log, busy.id)
    await backend.client.hset(backend.keys.meta, mapping={"sequence": "2", "last_id": turn.id})
    with pytest.raises(FencedError):
        process.recorder.compare(process.recorder.position, 2, turn.id)
    await process.see_operation("a", "running", in_progress=False)
    with pytest.raises(FencedError):
        await process.write()
    await process.resign()
    assert await process.lead() is None
    await process.see_operation("a", "stopped", in_progress=False)
    await process.write()
    assert await told(backend) == [(1, FIRST), (2, TURN), (7, TURN), (8, BUSY)]

"""One leader, and a Redis that is away for longer than its lease, answers half of its commands, or loses its last
writes: every status that a stream showed is in the log once, in order, and no number is used for two events.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bridge.events import Event
from bridge.store.log import Log
from tests.backups import Backup
from tests.fakes import redis_time
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import Replicas
from tests.virtual import run_virtual

NAMES = ["a", "b", "c"]
STATUSES = ["stopping", "stopped", "starting", "running", "error"]

Action = tuple[str, str]

ACTIONS = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(STATUSES)),
    st.tuples(st.just("redis"), st.sampled_from(["refused", "hanging", "deaf", ""])),
    st.tuples(st.just("save"), st.just("")),
    st.tuples(st.just("lose"), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1", "5", "15", "40"])),
)

EXAMPLES = os.environ.get("MODEL_EXAMPLES")


@settings(
    max_examples=int(EXAMPLES or 10),
    derandomize=EXAMPLES is None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate] if EXAMPLES else [Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@example([("redis", "refused"), ("a", "stopping"), ("wait", "5"), ("a", "stopped"), ("wait", "40")])
@example([("redis", "hanging"), ("a", "stopping"), ("wait", "5"), ("a", "running"), ("wait", "40")])
@example([("redis", "deaf"), ("a", "stopping"), ("wait", "5"), ("a", "running"), ("wait", "40")])
@example([("a", "stopping"), ("wait", "5"), ("save", ""), ("a", "stopped"), ("wait", "5"), ("lose", "")])
@example(
    [("save", ""), ("a", "stopping"), ("wait", "5"), ("redis", "refused"), ("b", "error"), ("wait", "40"), ("lose", "")]
)
@given(st.lists(ACTIONS, min_size=3, max_size=20))
def test_every_status_that_a_stream_showed_is_in_the_log_once_and_in_order(actions: list[Action]) -> None:
    run_virtual(_life(actions))


async def _life(actions: list[Action]) -> None:
    cloud = Cloud(NAMES)
    replicas = Replicas(cloud)
    with redis_time(replicas.redis_clock):
        replicas.start(0)
        await asyncio.sleep(30)
        numbers = Numbers()
        backup = await Backup.of(replicas.plain)
        for what, to in actions:
            if what == "redis":
                replicas.link.mode = to
            elif what == "save":
                backup = await Backup.of(replicas.plain)
            elif what == "lose":
                numbers.see(await events(replicas))
                await backup.restore(replicas.plain)
            elif what == "wait":
                await asyncio.sleep(float(to))
            else:
                cloud.change(what, to)
            await asyncio.sleep(0.5)
        replicas.link.mode = ""
        await asyncio.sleep(60)
        numbers.see(last := await events(replicas))
        await replicas.end()
    check(cloud, last)
    assert cloud.broken == []


@pytest.mark.parametrize("mode", ["slow", "hanging", "deaf"])
def test_a_stream_that_is_closed_in_the_middle_of_an_append_ends_no_term_and_loses_no_event(mode: str) -> None:
    async def scenario(after: float) -> None:
        cloud = Cloud(NAMES)
        replicas = Replicas(cloud)
        with redis_time(replicas.redis_clock):
            upstream = replicas.start(0).upstream
            await asyncio.sleep(34)  # the stream shows the change, before a list does
            context = upstream.context
            assert context is not None
            replicas.link.mode = mode
            cloud.change("a", "stopping")
            while context.watches["a"].status != "stopping":  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            await asyncio.sleep(after)
            [watching] = [task for task in asyncio.all_tasks() if task.get_name() == "watch a"]
            watching.cancel()
            await asyncio.sleep(0.1)
            replicas.link.mode = ""
            await asyncio.sleep(10)
            async with asyncio.timeout(100):  # a slot that could not be freed waits for its deadline
                while sorted(cloud.open) != NAMES:  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(1)
            assert upstream.context is context
            check(cloud, last := await events(replicas))
            assert [event.sequence for event in last] == [1, 2, 3, 4]
            await replicas.end()
        assert cloud.broken == []

    for step in range(6):
        run_virtual(scenario(0.4 * step))


async def events(replicas: Replicas) -> list[Event]:
    return await Log(replicas.plain).read("0-0", 100_000)


class Numbers:
    """Every number and id that a subscriber may have seen, and what it was used for."""

    def __init__(self) -> None:
        self._used: dict[int, str] = {}

    def see(self, log: list[Event]) -> None:
        numbers = [event.sequence for event in log]
        assert numbers == sorted(set(numbers))
        for event in log:
            assert self._used.setdefault(event.sequence, event.id) == event.id


def check(cloud: Cloud, log: list[Event]) -> None:
    told: dict[str, list[str]] = {}
    for event in log:
        data = json.loads(event.json)["data"]
        if "to" in data:
            statuses = told.setdefault(event.cvm_id, [])
            assert data["from"] == (statuses[-1] if statuses else None)
            assert data["to"] != data["from"]
            statuses.append(data["to"])
    for name in NAMES:
        shown = [status for status, _ in itertools.groupby(status for each, status in cloud.shown if each == name)]
        rest = iter(told[name])
        assert all(status in rest for status in shown), f"{name}: {shown} was shown, {told[name]} was written"
        assert told[name][-1] == cloud.status[name]

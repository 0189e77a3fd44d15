"""Leaders, freezes, failures and flushes in virtual time against a cloud that counts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import fakeredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.config import Settings
from bridge.store.connection import Backend, Script
from bridge.store.log import Log
from bridge.upstream.errors import ServerError
from bridge.upstream.leader import Upstream
from tests.fakes import fake_backend, fake_client, redis_time
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock, run_virtual

NAMES = [f"cvm-{number}" for number in range(8)]
STATUSES = ["stopping", "stopped", "starting", "running", "error"]

ACTIONS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.sampled_from(STATUSES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("freeze"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("thaw"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("restart"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("fail"), st.just(""), st.just("")),
    st.tuples(st.just("heal"), st.just(""), st.just("")),
    st.tuples(st.just("cut"), st.just(""), st.just("")),
    st.tuples(st.just("others"), st.sampled_from("0235"), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1", "12", "40"]), st.just("")),
)


class Replicas:
    """Two replicas that share a Redis; each can be frozen, thawed and restarted."""

    def __init__(self, clock: VirtualClock, cloud: Cloud) -> None:
        self.clock, self.cloud = clock, cloud
        self.server = fakeredis.FakeServer(version=(7,))
        self.thawed = [asyncio.Event(), asyncio.Event()]
        self.stops = [asyncio.Event(), asyncio.Event()]
        self.tasks: list[asyncio.Task[None]] = []
        self.backends: list[Backend] = []

    def backend(self, thawed: asyncio.Event | None) -> Backend:
        made = FrozenBackend(fake_client(self.server), thawed) if thawed else fake_backend(self.server)
        self.backends.append(made)
        return made

    def start(self, index: int) -> asyncio.Task[None]:
        self.thawed[index].set()
        self.stops[index] = asyncio.Event()
        chosen = Settings(cvms=("*",), lease_seconds=10, poll_interval=10, stream_timeout=60)
        client = ModelClient(self.cloud, self.clock, self.thawed[index])
        upstream = Upstream(
            chosen, self.backend(self.thawed[index]), client, self.clock, alone=True, chance=random.Random(index)
        )
        return asyncio.create_task(upstream.run(self.stops[index]))

    async def restart(self, index: int) -> None:
        self.thawed[index].set()
        self.stops[index].set()
        await self.tasks[index]
        self.tasks[index] = self.start(index)

    async def end(self) -> None:
        for index, task in enumerate(self.tasks):
            self.thawed[index].set()
            self.stops[index].set()
            await task
        for backend in self.backends:
            await backend.close()


class FrozenBackend(Backend):
    """A backend whose calls wait while its process is frozen."""

    def __init__(self, client: object, thawed: asyncio.Event) -> None:
        super().__init__(client, "bridge")
        self._thawed = thawed

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        await self._thawed.wait()
        return await super().run(script, keys, args)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTIONS, min_size=3, max_size=15))
def test_never_a_sixth_stream_nor_two_for_one_cvm_and_every_lasting_change_is_recorded(
    actions: list[tuple[str, str, str]],
) -> None:
    run_virtual(scenario(actions))


async def scenario(actions: list[tuple[str, str, str]]) -> None:
    clock = VirtualClock()
    with redis_time(clock):
        await live(actions, clock)


async def live(actions: list[tuple[str, str, str]], clock: VirtualClock) -> None:
    cloud = Cloud(NAMES)
    replicas = Replicas(clock, cloud)
    replicas.tasks = [replicas.start(0), replicas.start(1)]
    await asyncio.sleep(30)
    try:
        for action in actions:
            await perform(replicas, cloud, *action)
            await asyncio.sleep(0.5)
        cloud.failing, cloud.others = None, 0
        for thawed in replicas.thawed:
            thawed.set()
        await asyncio.sleep(200)
        await check(replicas, cloud)
    finally:
        await replicas.end()
    assert cloud.open == []


async def perform(replicas: Replicas, cloud: Cloud, what: str, on: str, to: str) -> None:
    if what == "change":
        cloud.status[on] = to
    elif what == "delete":
        cloud.status[on] = None
    elif what in ("freeze", "thaw"):
        event = replicas.thawed[int(on)]
        event.clear() if what == "freeze" else event.set()
    elif what == "restart":
        await replicas.restart(int(on))
    elif what == "fail":
        cloud.failing = ServerError
    elif what == "heal":
        cloud.failing = None
    elif what == "cut":
        cloud.cut += 1
    elif what == "others":
        cloud.others = int(on)
    else:
        await asyncio.sleep(float(on))


async def check(replicas: Replicas, cloud: Cloud) -> None:
    assert cloud.most <= 5
    assert not cloud.twice
    events = [json.loads(event.json) for event in await Log(replicas.backend(None)).read("0-0", 100_000)]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    last: dict[str, str | None] = {}
    for event in events:
        if event["type"] == "watch.dropped":
            last.pop(event["subject"], None)
        elif event["type"].startswith("cvm."):
            assert event["data"]["from"] == last.get(event["subject"])
            last[event["subject"]] = event["data"]["to"]
    alive = {name: status for name, status in cloud.status.items() if status is not None}
    assert {name: last.get(name) for name in alive} == alive
    # No slot leaks for ever: as many CVMs as can be are streamed again.
    for _ in range(200):
        if len(cloud.open) == min(5, len(alive)):
            return
        await asyncio.sleep(1)
    raise AssertionError(f"only {cloud.open} are streamed")

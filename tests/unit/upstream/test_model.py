"""Leaders, freezes, failures, flushes and jumping clocks in virtual time against a cloud that counts."""

from __future__ import annotations

import asyncio
import json
import os

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.upstream.errors import RateLimitedError, ServerError, UpstreamError
from bridge.upstream.pace import SLOW_ANSWER
from tests.fakes import redis_time
from tests.unit.upstream.model import LATELY, NOTICED_AFTER, NOTICED_LATE, Cloud
from tests.unit.upstream.replicas import LASTING, Monitor, Replicas
from tests.virtual import run_virtual

NAMES = [f"cvm-{number}" for number in range(8)]
STATUSES = ["stopping", "stopped", "starting", "running", "error"]
FAILURES: dict[str, type[UpstreamError]] = {"500": ServerError, "429": RateLimitedError}

Action = tuple[str, str, str]

ACTIONS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.sampled_from(STATUSES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("freeze"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("thaw"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("restart"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("kill"), st.sampled_from("01"), st.just("")),
    st.tuples(st.just("unlink"), st.sampled_from("012"), st.sampled_from(["refused", "hanging", "deaf"])),
    st.tuples(st.just("link"), st.sampled_from("012"), st.just("")),
    st.tuples(st.just("flush"), st.sampled_from(["all", "slots", "takes", "tail"]), st.just("")),
    st.tuples(st.just("jump"), st.sampled_from("012"), st.sampled_from(["-3600", "-30", "-5", "5", "30", "3600"])),
    st.tuples(st.just("fail"), st.sampled_from(list(FAILURES)), st.just("")),
    st.tuples(
        st.just("unroute"), st.sampled_from(["plain", "streams", "plain streams", "states", "lists"]), st.just("")
    ),
    st.tuples(st.just("ends"), st.just(""), st.just("")),
    st.tuples(st.just("heal"), st.just(""), st.just("")),
    st.tuples(st.just("cut"), st.just(""), st.sampled_from(["", "unheard"])),
    st.tuples(st.just("lose"), st.just(""), st.just("")),
    st.tuples(st.just("answers"), st.sampled_from(["lost", ""]), st.just("")),
    st.tuples(st.just("batches"), st.sampled_from(["slow", "halved", "words"]), st.just("")),
    st.tuples(st.just("notices"), st.sampled_from(["late", "soon"]), st.just("")),
    st.tuples(st.just("others"), st.sampled_from("0235"), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1", "12", "40", "100"]), st.just("")),
)


# The suite lives the same few lives each time; MODEL_EXAMPLES=200 by hand looks for new ones. Not shrunk: a life takes
# most of a second, and fifteen actions can be read.
EXAMPLES = os.environ.get("MODEL_EXAMPLES")


@settings(
    max_examples=int(EXAMPLES or 10),
    derandomize=EXAMPLES is None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate] if EXAMPLES else [Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(ACTIONS, min_size=3, max_size=15))
def test_never_a_sixth_stream_nor_two_for_one_cvm_and_every_lasting_change_is_recorded(actions: list[Action]) -> None:
    live(*actions)


def live(*actions: Action) -> Monitor:
    """One life of two replicas, and what must hold throughout and at its end."""
    return run_virtual(_life(actions))


async def _life(actions: tuple[Action, ...]) -> Monitor:
    cloud = Cloud(NAMES)
    replicas = Replicas(cloud)
    monitor = Monitor(replicas, cloud)
    with redis_time(replicas.redis_clock):
        replicas.start(0)
        await asyncio.sleep(1)
        replicas.start(1)
        await asyncio.sleep(29)
        watching = asyncio.create_task(monitor.run(), name="monitor")
        try:
            for action in actions:
                await perform(replicas, monitor, *action)
                await asyncio.sleep(0.5)
            await check_end(replicas, cloud)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await replicas.end()
        await asyncio.sleep(1)
    assert cloud.open == []
    assert cloud.broken == []
    assert monitor.missed == []
    assert monitor.checked
    return monitor


async def perform(replicas: Replicas, monitor: Monitor, what: str, on: str, to: str) -> None:
    cloud = replicas.cloud
    if what in ("batches", "heal"):
        monitor.expect_after(LASTING + SLOW_ANSWER)  # a CVM that was vouched for until now gets a turn
    if what in ("change", "delete"):
        cloud.change(on, to or None)
    elif what in ("freeze", "thaw"):
        monitor.expect_after(LASTING)
        event = replicas.all[int(on)].thawed
        event.clear() if what == "freeze" else event.set()
    elif what in ("restart", "kill"):
        await replicas.restart(int(on), kill=what == "kill")
    elif what in ("unlink", "link"):
        monitor.expect_after(LASTING + 5)
        (replicas.link if on == "2" else replicas.all[int(on)].link).mode = to
    elif what == "flush":
        monitor.expect_after(4.5 + LASTING)
        await replicas.lose(on)
    elif what == "jump" and on == "2":
        monitor.expect_after(LASTING)
        await replicas.jump(float(to))
    elif what == "jump":
        replicas.all[int(on)].clock.jump(float(to))
    else:
        await _perform_upstream(cloud, what, on, to)


async def _perform_upstream(cloud: Cloud, what: str, on: str, to: str) -> None:
    if what == "fail":
        cloud.failing = FAILURES[on]
    elif what == "unroute":
        cloud.unrouted = frozenset(on.split())
    elif what == "heal":
        cloud.failing, cloud.ends_at_once, cloud.unrouted, cloud.batches = None, False, frozenset(), ""
    elif what == "batches":
        cloud.batches = on
    elif what == "wait":
        await asyncio.sleep(float(on))
    else:
        await _perform_streams(cloud, what, on, to)


async def _perform_streams(cloud: Cloud, what: str, on: str, to: str) -> None:
    if what == "ends":
        cloud.ends_at_once = True
    elif what == "cut":
        cloud.cut, cloud.cut_unheard = cloud.cut + 1, bool(to)
    elif what == "lose":
        cloud.lose()
        await asyncio.sleep(LATELY)  # what comes next finds streams that nobody takes for heard any more
    elif what == "answers":
        cloud.answers_lost = on == "lost"
    elif what == "notices":
        cloud.noticed_after = NOTICED_LATE if on == "late" else NOTICED_AFTER
    else:
        cloud.others = int(on)


async def check_end(replicas: Replicas, cloud: Cloud) -> None:
    """All healthy again: states agree, transitions chain, the sequence has no hole, five streams are usable."""
    cloud.failing, cloud.ends_at_once, cloud.others, cloud.unrouted, cloud.batches = None, False, 0, frozenset(), ""
    cloud.answers_lost, cloud.noticed_after = False, NOTICED_AFTER
    replicas.heal()
    await asyncio.sleep(110)
    events = [json.loads(event.json) for event in await Log(replicas.plain).read("0-0", 100_000)]
    last = await remaining(replicas, events) if replicas.tails_lost else chained(events)
    assert {event["subject"] for event in events if event["data"].get("to") == "deleted"} <= cloud.ever_deleted
    alive = {name: status for name, status in cloud.status.items() if status is not None}
    assert {name: last.get(name) for name in alive} == alive
    for _ in range(490):
        if len(cloud.open) == min(5, len(alive)):
            return
        await asyncio.sleep(1)
    raise AssertionError(f"only {cloud.open} are streamed")


async def remaining(replicas: Replicas, events: list[dict[str, object]]) -> dict[str, str | None]:
    """The last statuses, also where the log lost its end: a number is missing there, and a leader cannot write again
    what another one wrote.
    """
    numbers = [int(str(event["sequence"])) for event in events]
    assert numbers == sorted(set(numbers))
    return {name: snapshot.status for name, snapshot in (await Snapshots(replicas.plain).all()).items()}


def chained(events: list[dict[str, object]]) -> dict[str, object]:
    """The last status of each CVM; `from` equals the last `to`, and no number is missing."""
    assert [int(str(event["sequence"])) for event in events] == list(range(1, len(events) + 1))
    last: dict[str, object] = {}
    for event in events:
        subject, data = str(event["subject"]), event["data"]
        assert isinstance(data, dict)
        if event["type"] == "watch.dropped":
            last.pop(subject, None)
        elif str(event["type"]).startswith("cvm."):
            assert data["from"] == last.get(subject)
            last[subject] = data["to"]
    return last

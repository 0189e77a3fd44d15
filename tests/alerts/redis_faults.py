"""Faults of Redis, and of what is in it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Generator

from tests.alerts.play import Rehearsal
from tests.alerts.stage import Stage


def right_taken(stage: Stage) -> Generator[None, None, None]:
    user = stage.server.url.replace("://", "://weak:password@")
    stage.server.call("ACL", "SETUSER", "weak", "on", ">password", "~*", "&*", "+@all")
    stage.start_all(REDIS_URL=user)
    yield
    stage.server.call("ACL", "SETUSER", "weak", "-evalsha", "-eval", "-hgetall", "-hget")
    yield
    told = stage.run("check", REDIS_URL=user)
    found = re.search(r"ACL SETUSER weak(?:.+\n)+?(?=\n|\S)", told)
    assert found, told
    stage.server.call(*found[0].split())


def frozen(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.server.freeze()
    yield
    stage.server.thaw()


def full(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.server.call("CONFIG", "SET", "maxmemory", "1")
    stage.change()
    yield
    assert "WRONG    only 0 % of its maxmemory" in stage.run("check")
    stage.server.call("CONFIG", "SET", "maxmemory", "0")


def rolled_back(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.server.call("SAVE")
    stage.change(0, 1, 2)
    time.sleep(1)
    stage.server.restart()
    yield
    stage.server.call("CONFIG", "SET", "appendonly", "yes")


def log_unread(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all(BRIDGE_LOG_LENGTH="20")
        stage.register(url)
        yield
        stage.end("dispatcher", signal.SIGKILL)
        for _ in range(5):
            stage.change()
        yield
        stage.start("dispatcher")
        yield


def group_late(stage: Stage) -> Generator[None, None, None]:
    stage.start_all(BRIDGE_LOG_LENGTH="20")
    yield
    stage.server.call("XGROUP", "CREATE", "{bridge}:log", "queue", "$")
    for _ in range(6):
        stage.change()
    yield
    assert "late queue" in stage.run("check", BRIDGE_LOG_LENGTH="20")
    stage.server.call("XGROUP", "SETID", "{bridge}:log", "queue", "$")


LEASE_ENDED = ("BridgeNotLed", "BridgeSlotsShort")
"""Nobody can lead; and the slots of the term before wait, longer than the shortened `for:`."""

REDIS = [
    Rehearsal(
        alert="BridgeRedisRefuses",
        broken="its ACL takes rights away",
        mended="the line that `bridge check` prints",
        steps=right_taken,
        beside=LEASE_ENDED,
    ),
    Rehearsal(
        alert="BridgeRedisRefuses", broken="it hangs", mended="it answers again", steps=frozen, beside=LEASE_ENDED
    ),
    Rehearsal(
        alert="BridgeRedisRefuses", broken="it is full", mended="`maxmemory` is raised", steps=full, beside=LEASE_ENDED
    ),
    Rehearsal(
        alert="BridgeLogEventsLost",
        broken="Redis restarts without its last writes",
        mended="`appendonly` is switched on",
        steps=rolled_back,
    ),
    Rehearsal(
        alert="BridgeLogTrimmedEarly",
        broken="the dispatcher is killed, and events come",
        mended="one is started",
        steps=log_unread,
        beside=("BridgeDispatcherMissing",),
    ),
    Rehearsal(
        alert="BridgeLogTrimmedEarly",
        broken="nobody reads for a consumer group",
        mended="it is set to the log's end",
        steps=group_late,
    ),
]

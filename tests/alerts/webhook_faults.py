"""Faults of dispatchers, and of receivers."""

from __future__ import annotations

import signal
from collections.abc import Generator

from bridge.sealing import new_key
from tests.alerts.play import Rehearsal
from tests.alerts.stage import CVMS, Stage
from tests.alerts.waiting import until


def dispatcher_killed(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        stage.register(url)
        yield
        stage.end("dispatcher", signal.SIGKILL)
        yield
        stage.start("dispatcher")
        yield


def dispatcher_frozen(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        stage.register(url)
        yield
        stage.commands["dispatcher"].process.send_signal(signal.SIGSTOP)
        yield
        stage.end("dispatcher", signal.SIGKILL)
        stage.start("dispatcher")
        yield


def redis_nearly_full(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        stage.register(url)
        stage.server.call("SET", "ballast", "x" * 30_000_000)
        yield
        used = int(stage.server.call("INFO", "memory")["used_memory"])
        stage.server.call("CONFIG", "SET", "maxmemory", int(used / 0.93))
        stage.change()
        yield
        assert "less than a tenth" in stage.ready("dispatcher")["reason"]
        stage.server.call("CONFIG", "SET", "maxmemory", "0")
        yield


def receivers_slow(stage: Stage) -> Generator[None, None, None]:
    """All attempts of the only dispatcher wait: it may have few files, so some at once."""
    with stage.receiving() as url:
        stage.start_all()
        stage.restart("dispatcher", files=110)
        for _ in range(40):
            stage.register(url)
        yield
        stage.answers.clear()
        stage.change()
        yield
        stage.start("dispatcher 2")
        yield


def key_missing(stage: Stage) -> Generator[None, None, None]:
    new = new_key()
    with stage.receiving() as url:
        stage.start_all()
        stage.register(url)
        yield
        stage.restart("web", BRIDGE_SECRET_KEY=f"{new},{stage.secret_key}")
        until(lambda: stage.ready("web").get("status") == "ready", "the front end")
        stage.register(url)
        stage.change()
        yield
        stage.restart("dispatcher", BRIDGE_SECRET_KEY=f"{stage.secret_key},{new}")
        yield


def receiver_fails(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        endpoint = stage.register(url)
        yield
        stage.status = 500
        stage.change(0)
        yield
        stage.status = 204
        stage.ask("POST", f"/v1/webhooks/{endpoint}/test")
        until(lambda: _delivered(stage, endpoint) == 2, "the test, and what waited")
        yield


def receiver_gone(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        endpoint = stage.register(url)
        yield
        stage.status = 410
        stage.change()
        yield
        stage.status = 204
        stage.ask("POST", f"/v1/webhooks/{endpoint}/enable")
        stage.ask("POST", f"/v1/webhooks/{endpoint}/recover", json={"since": "2020-01-01T00:00:00Z"})
        until(lambda: _delivered(stage, endpoint) >= CVMS, "what it missed")
        yield


def record_damaged(stage: Stage) -> Generator[None, None, None]:
    with stage.receiving() as url:
        stage.start_all()
        endpoint = stage.register(url)
        yield
        stage.server.call("HSET", "{bridge}:webhooks:endpoints", endpoint, "odd")
        stage.restart("dispatcher")
        yield
        (found,) = stage.ask("GET", "/v1/webhooks")["items"]
        assert found["disabled_reason"].startswith("broken:")
        stage.ask("DELETE", f"/v1/webhooks/{endpoint}")
        yield


def _delivered(stage: Stage, endpoint: str) -> int:
    return len(stage.ask("GET", f"/v1/webhooks/{endpoint}/deliveries?status=delivered")["items"])


WEBHOOKS = [
    Rehearsal(
        alert="BridgeDispatcherMissing",
        broken="the only dispatcher is killed",
        mended="one is started",
        steps=dispatcher_killed,
    ),
    Rehearsal(
        alert="BridgeDispatcherMissing",
        broken="the only dispatcher is frozen",
        mended="it is killed, and one is started",
        steps=dispatcher_frozen,
    ),
    Rehearsal(
        alert="BridgeDispatcherLate",
        broken="Redis is nearly full",
        mended="`maxmemory` is raised",
        steps=redis_nearly_full,
    ),
    Rehearsal(
        alert="BridgeDispatcherLate",
        broken="all attempts wait for slow receivers",
        mended="another dispatcher is started",
        steps=receivers_slow,
        beside=("BridgeEndpointFailing",),
    ),
    Rehearsal(
        alert="BridgeWebhooksPostponed",
        broken="an endpoint is sealed with a key that the dispatcher lacks",
        mended="restart with both keys",
        steps=key_missing,
    ),
    Rehearsal(
        alert="BridgeEndpointFailing",
        broken="a receiver answers 500",
        mended="it answers 204, and is tested",
        steps=receiver_fails,
    ),
    Rehearsal(
        alert="BridgeEndpointDisabled",
        broken="a receiver answers 410",
        mended="it is enabled and recovered",
        steps=receiver_gone,
    ),
    Rehearsal(
        alert="BridgeEndpointBroken",
        broken="an endpoint's record is overwritten",
        mended="it is deleted",
        steps=record_damaged,
    ),
]

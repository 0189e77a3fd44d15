"""Faults of the leader, and of what it has from Phala Cloud."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from typing import Any

from tests.alerts.play import Rehearsal
from tests.alerts.stage import Stage


def leader_killed(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.end("upstream", signal.SIGKILL)
    yield
    stage.start("upstream")


def leader_frozen(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.commands["upstream"].process.send_signal(signal.SIGSTOP)
    yield
    stage.end("upstream", signal.SIGKILL)
    stage.start("upstream")


def upstream_down(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.control("POST", "/faults", route="*", action="reset", times=None)
    stage.control("POST", "/streams/cut")
    yield
    stage.control("DELETE", "/faults")


def key_revoked(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.control("PATCH", "/settings", keys={"phak_new": "demo"})
    stage.control("POST", "/streams/cut")
    yield
    stage.restart("upstream", PHALA_CLOUD_API_KEY="phak_new")


def state_unreadable(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    ref = stage.cvms()[0]["cvm_id"]
    yield
    stage.control("POST", "/faults", route="state", cvm=ref, status=503, times=None)
    stage.control("POST", "/faults", route="stream", cvm=ref, status=503, times=None)
    stage.control("PATCH", "/settings", batch_missing=[ref])
    stage.control("POST", "/streams/cut", cvm=ref)
    yield
    (stale,) = [each for each in stage.cvms() if not each["fresh"]]
    assert (stale["cvm_id"], stale["stale_reason"]) == (ref, "unreachable")
    stage.control("DELETE", "/faults")


def rate_limited(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.control("POST", "/faults", route="state", status=429, headers={"Retry-After": "30"}, times=None)
    stage.control("POST", "/faults", route="batch", status=429, headers={"Retry-After": "30"}, times=None)
    yield
    assert {each["stale_reason"] for each in stage.cvms() if not each["fresh"]} == {"rate_limited"}
    stage.control("DELETE", "/faults")


def slots_taken(stage: Stage) -> Generator[None, None, None]:
    stage.start_all()
    yield
    stage.control("PUT", "/users/demo", occupied=3)
    stage.control("POST", "/streams/cut")
    yield
    stage.restart("upstream", BRIDGE_MAX_STREAMS="2")


def streams_cut(stage: Stage) -> Generator[None, None, None]:
    """A proxy that cuts every stream after twelve seconds."""
    done, begun = threading.Event(), dict[int, float]()

    def cut() -> None:
        while not done.wait(0.5):
            for each in stage.control("GET", "/streams")["items"]:
                if time.monotonic() - begun.setdefault(each["id"], time.monotonic()) > 12:
                    stage.control("POST", "/streams/cut", cvm=each["cvm"])

    stage.start_all(BRIDGE_STREAM_TIMEOUT="60")
    yield
    proxy = threading.Thread(target=cut)
    proxy.start()
    try:
        yield
        stage.restart("upstream", BRIDGE_STREAM_TIMEOUT="10")
        yield
    finally:
        done.set()
        proxy.join()


def webhook_refused(stage: Stage) -> Generator[None, None, None]:
    public: dict[str, Any] = {"BRIDGE_PUBLIC_URL": stage.url}
    stage.start_all(**public)
    yield
    stage.control("POST", "/faults", route="webhooks", status=403, times=None)
    stage.restart("upstream", **public)
    yield
    assert "webhook" in stage.run("check", **public)
    stage.control("DELETE", "/faults")
    stage.restart("upstream", **public)


RESTARTED = ("BridgeNotLed", "BridgeSlotsShort")
"""A standby would spare the first. Slots of a leader that was killed, and of streams that were cut, wait for their
deadlines: longer than the shortened `for:`, though shorter than the real one."""

UPSTREAM = [
    Rehearsal(
        alert="BridgeNotLed",
        broken="the only `bridge upstream` is killed",
        mended="one is started",
        steps=leader_killed,
        beside=RESTARTED,
    ),
    Rehearsal(
        alert="BridgeNotLed",
        broken="the only `bridge upstream` is frozen",
        mended="it is killed, and one is started",
        steps=leader_frozen,
        beside=RESTARTED,
    ),
    Rehearsal(
        alert="BridgeUpstreamUnreachable",
        broken="upstream resets every connection",
        mended="it answers again",
        steps=upstream_down,
        beside=("BridgeStatesStale", *RESTARTED),
    ),
    Rehearsal(
        alert="BridgeKeyRefused",
        broken="the key is revoked",
        mended="restart with a new one",
        steps=key_revoked,
        beside=("BridgeStatesStale", *RESTARTED),
    ),
    Rehearsal(
        alert="BridgeStatesStale",
        broken="upstream answers 503 about one CVM",
        mended="it answers again",
        steps=state_unreadable,
    ),
    Rehearsal(
        alert="BridgeStatesStale", broken="upstream answers 429 to reads", mended="it answers again", steps=rate_limited
    ),
    Rehearsal(
        alert="BridgeSlotsShort",
        broken="the account is used elsewhere",
        mended="`BRIDGE_MAX_STREAMS` is lowered",
        steps=slots_taken,
        beside=RESTARTED,
    ),
    Rehearsal(
        alert="BridgeSlotsShort",
        broken="a proxy cuts streams after 12 s",
        mended="`BRIDGE_STREAM_TIMEOUT=10`",
        steps=streams_cut,
        beside=RESTARTED,
    ),
    Rehearsal(
        alert="BridgePhalaWebhookMissing",
        broken="the key has no right to webhooks",
        mended="it gets the right, and a restart",
        steps=webhook_refused,
        beside=RESTARTED,
    ),
]
